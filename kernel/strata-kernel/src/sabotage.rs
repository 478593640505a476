//! Planted bugs, to test the tests: each is one line somewhere, switched on by the name it has in
//! `reliability.md`, section 7. Without the cargo feature `sabotage` there are none: `on` is a constant.

#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn on(_name: &str) -> bool {
    false
}

#[cfg(feature = "sabotage")]
pub use planted::{on, with};

#[cfg(feature = "sabotage")]
mod planted {
    use std::cell::RefCell;
    use std::sync::LazyLock;

    /// For whole processes, as the crash tests start them.
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("STRATA_SABOTAGE").ok());

    thread_local! {
        /// For one test among many in one process: simulated runs have one thread.
        static HERE: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    /// Whether the bug called `name` is planted in this run.
    pub fn on(name: &str) -> bool {
        HERE.with_borrow(|here| here.as_deref() == Some(name)) || CHOSEN.as_deref() == Some(name)
    }

    /// Run `body` with the bug called `name` planted on this thread.
    pub fn with<T>(name: &str, body: impl FnOnce() -> T) -> T {
        /// Takes the bug out again, also when `body` panics: that is how most tests notice it.
        struct Restore(Option<String>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HERE.set(self.0.take());
            }
        }
        let _restore = Restore(HERE.replace(Some(name.to_owned())));
        body()
    }
}
