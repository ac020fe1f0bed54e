//! The allocator of the binary and of the Python module.
//!
//! It asks the system for huge pages, which Linux gives where they are not switched off. With small ones, page faults take
//! as long as all else that prepares a model, and the products of a network some percent longer.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Milliseconds until memory that is free goes back to the system (mimalloc 2's own default is 10).
const PURGE_DELAY_MS: std::ffi::c_long = 1000;

/// `mi_option_purge_delay` in mimalloc 2's `mi_option_e`.
const PURGE_DELAY: mi_option_t = 15;

/// Lets free memory stay for the next run: what goes back between two runs comes again in small pages. The environment variable
/// `MIMALLOC_PURGE_DELAY` overrules it.
pub fn configure() {
    // SAFETY: an option that exists is set to a number; any thread may do that at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_option_get;

    #[test]
    fn the_option_is_the_delay_of_purges() {
        // SAFETY: the option exists.
        let get = || unsafe { mi_option_get(PURGE_DELAY) };
        let before = get();
        assert!([10, PURGE_DELAY_MS].contains(&before), "mimalloc 2's default: {before}");
        configure();
        assert_eq!(get(), PURGE_DELAY_MS);
    }
}
