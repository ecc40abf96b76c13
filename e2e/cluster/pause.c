/* Process 1 of every pod's sandbox: holds its namespaces until it is told to end, and reaps what is left to it. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

int main(void) {
    sigset_t wanted;
    int signal;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGCHLD);
    /* Blocked signals wait for sigwait: process 1 needs no handler, and none is lost. */
    sigprocmask(SIG_BLOCK, &wanted, 0);
    while (sigwait(&wanted, &signal) == 0 || errno == EINTR) {
        if (signal != SIGCHLD) return 0;
        while (waitpid(-1, 0, WNOHANG) > 0) {}
    }
    return 1;
}
