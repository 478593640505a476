//! Writing values: each function appends one piece in its smallest MessagePack encoding.
//!
//! Only floats keep their full width: the bits of a float are part of the value.

/// Append null.
#[inline]
pub fn null(out: &mut Vec<u8>) {
    out.push(0xc0);
}

#[inline]
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(0xc2 + u8::from(value));
}

/// From 128 upwards the unsigned forms, as other MessagePack writers do: hashes of canonical values
/// have to be reproducible elsewhere.
#[inline]
pub fn int(out: &mut Vec<u8>, value: i64) {
    match value {
        -32..=127 => out.push(value as u8),
        0x80..=0xff => tagged(out, 0xcc, (value as u8).to_be_bytes()),
        0x100..=0xffff => tagged(out, 0xcd, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, 0xce, (value as u32).to_be_bytes()),
        0x1_0000_0000.. => tagged(out, 0xcf, value.to_be_bytes()),
        -0x80..=-33 => tagged(out, 0xd0, (value as i8).to_be_bytes()),
        -0x8000..=-0x81 => tagged(out, 0xd1, (value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => tagged(out, 0xd2, (value as i32).to_be_bytes()),
        _ => tagged(out, 0xd3, value.to_be_bytes()),
    }
}

/// Append a float bit for bit: -0.0 and the payload of a NaN survive.
#[inline]
pub fn float(out: &mut Vec<u8>, value: f64) {
    tagged(out, 0xcb, value.to_bits().to_be_bytes());
}

#[inline]
pub fn string(out: &mut Vec<u8>, value: &str) {
    match value.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..0x100 => tagged(out, 0xd9, (length as u8).to_be_bytes()),
        length @ 0x100..0x1_0000 => tagged(out, 0xda, (length as u16).to_be_bytes()),
        length => tagged(out, 0xdb, wide(length)),
    }
    out.extend_from_slice(value.as_bytes());
}

#[inline]
pub fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    match value.len() {
        length @ 0..0x100 => tagged(out, 0xc4, (length as u8).to_be_bytes()),
        length @ 0x100..0x1_0000 => tagged(out, 0xc5, (length as u16).to_be_bytes()),
        length => tagged(out, 0xc6, wide(length)),
    }
    out.extend_from_slice(value);
}

/// Begin a list: `count` values have to follow.
#[inline]
pub fn list_header(out: &mut Vec<u8>, count: usize) {
    match count {
        0..16 => out.push(0x90 | count as u8),
        16..0x1_0000 => tagged(out, 0xdc, (count as u16).to_be_bytes()),
        _ => tagged(out, 0xdd, wide(count)),
    }
}

/// Begin a map: `count` pairs have to follow, each a string and a value.
#[inline]
pub fn map_header(out: &mut Vec<u8>, count: usize) {
    match count {
        0..16 => out.push(0x80 | count as u8),
        16..0x1_0000 => tagged(out, 0xde, (count as u16).to_be_bytes()),
        _ => tagged(out, 0xdf, wide(count)),
    }
}

#[inline]
fn tagged<const N: usize>(out: &mut Vec<u8>, tag: u8, payload: [u8; N]) {
    // One growth check for both.
    out.reserve(N + 1);
    out.push(tag);
    out.extend_from_slice(&payload);
}

fn wide(length: usize) -> [u8; 4] {
    // Values end at 32 MiB, far below; a caller that gets here broke its own limit.
    u32::try_from(length).expect("a length beyond MessagePack").to_be_bytes()
}
