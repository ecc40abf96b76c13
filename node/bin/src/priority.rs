//! Who runs first when the machine has less time than its nodes want.

/// Steps below the priority of the other threads; one step is about a tenth of the share.
const STEPS: i32 = 5;

/// Lowers the calling thread's priority. Verifying is most of a node's work; at the priority of consensus it makes
/// rounds time out under the very load that it lets in. Lowered, too much load meets a full queue at the entrance.
#[allow(unsafe_code)]
pub(crate) fn yield_to_consensus() {
    // SAFETY: the call takes three numbers; on Linux a `who` of 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, STEPS) };
    if result != 0 {
        // Lowering needs no right; without it the node is only less steady under load.
        tracing::debug!(error = %std::io::Error::last_os_error(), "the priority stays as it is");
    }
}
