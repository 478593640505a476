//! Values: eight kinds, held as MessagePack.
