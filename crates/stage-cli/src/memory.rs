//! The allocators of every stage.

use std::ffi::c_int;

/// Networks allocate and free large tensors at every step; docs/results.md says what this allocator saves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header: milliseconds until freed pages go back to the kernel, -1 for never.
const PURGE_DELAY: c_int = 15;
/// The user's own choice, which mimalloc reads itself.
const VARIABLE: &str = "MIMALLOC_PURGE_DELAY";

/// Keeps freed memory in the process instead of returning it to the kernel.
///
/// Both mimalloc and glibc, from which libtorch allocates, would return a step's large tensors, and the next step would
/// fault their pages in and clear them again. The peak is a little higher, and the process stays at it. Does nothing if
/// `MIMALLOC_PURGE_DELAY` is set.
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    // SAFETY: the option exists in every version of the header that this crate is pinned to, any value is allowed, and
    // mimalloc stores it atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both parameters take any value. -1 is the largest size there is: nothing is trimmed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, c_int::MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Gives this process pages of the usual size only, for a stage without networks: where each page is touched once, clearing
/// whole huge pages costs more than it saves (docs/results.md). Does nothing on systems other than Linux.
#[allow(unsafe_code)]
pub fn use_small_pages() {
    // SAFETY: sets a flag of this process; the last three arguments must be zero, and are. A kernel that does not know it
    // refuses, and all stays as it was.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)]
    fn purge_delay() -> i64 {
        // SAFETY: reads a number.
        unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }
    }

    #[test]
    fn freed_memory_stays_unless_the_user_says_otherwise() {
        // A second is the option's documented default, which shows that its number is right.
        assert_eq!(purge_delay(), 1000);
        keep_freed_memory();
        assert_eq!(purge_delay(), -1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn small_pages_are_those_of_this_process_alone() {
        let has_huge = || std::fs::read_to_string("/proc/self/status").unwrap().contains("THP_enabled:\t1");
        use_small_pages();
        assert!(!has_huge());
    }
}
