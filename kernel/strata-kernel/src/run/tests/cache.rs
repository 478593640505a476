//! The cache keeps its budget, whatever is read through it.

use super::*;

fn model() -> Model {
    let content = |n: u16| Content {
        kind: ChangeKind::Put,
        value: Some(n.to_be_bytes().repeat(10)),
        touched: Vec::new(),
        expires: 0,
    };
    (0_u16..3000).map(|n| ((0, 0, n.to_be_bytes().to_vec(), Reverse(1)), content(n))).collect()
}

/// Whether the cache was never seen above its budget while rows were read in a random order.
fn keeps_its_budget() -> bool {
    let disk = SimDisk::new(1);
    let model = model();
    write(&disk, 1, &options(), &model).unwrap();
    let cache = BlockCache::new(40_000);
    let run = Run::open(&disk, 1, &cache, &options()).unwrap();
    let mut most = 0;
    for number in 0..6000_u32 {
        let key = (number.wrapping_mul(0x9e37_79b9) >> 16) as u16 % 3000;
        let found = get(&run, 0, 0, &key.to_be_bytes(), 1).unwrap().unwrap();
        assert_eq!(found.1.value.unwrap(), key.to_be_bytes().repeat(10));
        most = most.max(cache.bytes());
    }
    assert!(most > 20_000, "the cache is used");
    most <= cache.budget()
}

#[test]
fn the_cache_keeps_its_budget() {
    assert!(keeps_its_budget());
}

#[cfg(feature = "sabotage")]
#[test]
fn sabotage_t24_a_budget_ignored_is_caught() {
    assert!(!crate::sabotage::with("T24", keeps_its_budget));
}

#[test]
fn a_lower_budget_takes_effect_at_once_and_a_removed_run_leaves_nothing() {
    let disk = SimDisk::new(1);
    let model = model();
    write(&disk, 1, &options(), &model).unwrap();
    write(&disk, 2, &options(), &model).unwrap();
    let cache = BlockCache::new(1 << 20);
    let runs = [1, 2].map(|number| Run::open(&disk, number, &cache, &options()).unwrap());
    for run in &runs {
        range(run, 0, 0, &Range::default(), false, 1).unwrap();
    }
    let both = cache.bytes();
    runs[0].forget();
    assert!(cache.bytes() > 0 && cache.bytes() <= both / 2 + 1000, "{} of {both}", cache.bytes());
    let before = cache.counts();
    range(&runs[1], 0, 0, &Range::default(), false, 1).unwrap();
    let after = cache.counts();
    assert_eq!(before.misses, after.misses);
    assert!(after.hits > before.hits);
    cache.set_budget(5_000);
    assert!(cache.bytes() <= 5_000);
    cache.set_budget(0);
    assert_eq!(cache.bytes(), 0);
    range(&runs[0], 0, 0, &Range::default(), true, 1).unwrap();
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn a_walk_through_everything_leaves_the_cache_as_it_is() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model()).unwrap();
    let cache = BlockCache::new(1 << 20);
    let run = Run::open(&disk, 1, &cache, &options()).unwrap();
    assert_eq!(all(&run, None).unwrap().len(), 3000);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn what_is_asked_again_and_again_stays() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model()).unwrap();
    // Room for about half of it: less than 60 frames in a shard would say more of the shard than of the cache.
    let cache = BlockCache::new(300_000);
    let run = Run::open(&disk, 1, &cache, &options()).unwrap();
    let ask = |key: u16| get(&run, 0, 0, &key.to_be_bytes(), 1).unwrap();
    let (mut misses, mut others) = (0, 0);
    for number in 0..12_000 {
        let before = cache.counts().misses;
        ask(number % 3000);
        let between = cache.counts().misses;
        ask(77);
        (misses, others) = (misses + cache.counts().misses - between, others + between - before);
    }
    assert!(others > 3000, "{others} misses of all the others: they do not fit");
    assert!(misses < 20, "{misses} misses of a key that is asked for every time");
}
