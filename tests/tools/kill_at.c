/* Kills a running process with SIGKILL at the entry of its Nth system call that changes something outside of it.
 *
 * Usage: kill_at PID N OUT     (N = 0: only count)
 *
 * It attaches to every thread of PID, prints "attached" and counts from there on: calls that change a disk, and messages to a
 * datagram or packet socket. Threads share one count, which `strace -e inject=…:when=N` does not offer. Writes to pipes,
 * eventfds and streams are not counted: they change nothing that outlives the process. It ends when PID ends, or when its
 * standard input does (then it detaches); the count and the call at which it killed are in OUT, one line: "COUNT NAME".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>

enum kind { ALWAYS, CREATES, TO_FD, OPEN_HOW };
struct call { long number; enum kind kind; const char *name; };
#define CALL(name, kind) { SYS_##name, kind, #name }
static const struct call CALLS[] = {
    CALL(openat, CREATES), CALL(openat2, OPEN_HOW), CALL(write, TO_FD), CALL(pwrite64, TO_FD), CALL(writev, TO_FD),
    CALL(pwritev, TO_FD), CALL(pwritev2, TO_FD), CALL(sendto, TO_FD), CALL(sendmsg, TO_FD), CALL(renameat2, ALWAYS),
    CALL(unlinkat, ALWAYS), CALL(symlinkat, ALWAYS), CALL(linkat, ALWAYS), CALL(mkdirat, ALWAYS), CALL(fsync, ALWAYS),
    CALL(fdatasync, ALWAYS), CALL(syncfs, ALWAYS), CALL(ftruncate, ALWAYS), CALL(fchmod, ALWAYS), CALL(fchmodat, ALWAYS),
    CALL(fchown, ALWAYS), CALL(fchownat, ALWAYS), CALL(utimensat, ALWAYS), CALL(copy_file_range, ALWAYS),
#ifdef SYS_renameat
    CALL(renameat, ALWAYS),
#endif
#ifdef SYS_fchmodat2
    CALL(fchmodat2, ALWAYS),
#endif
#ifdef SYS_open
    CALL(open, CREATES), CALL(rename, ALWAYS), CALL(unlink, ALWAYS), CALL(rmdir, ALWAYS), CALL(symlink, ALWAYS),
    CALL(link, ALWAYS), CALL(mkdir, ALWAYS), CALL(chmod, ALWAYS), CALL(chown, ALWAYS), CALL(lchown, ALWAYS),
    CALL(truncate, ALWAYS),
#endif
};

static int fd_counts(pid_t pid, int fd) {
    char path[64];
    struct stat found;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    if (stat(path, &found) != 0) return 0;
    if (S_ISREG(found.st_mode)) return 1;
    if (!S_ISSOCK(found.st_mode)) return 0;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), type = 0;
    socklen_t length = sizeof type;
    int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (copy >= 0) getsockopt(copy, SOL_SOCKET, SO_TYPE, &type, &length);
    if (copy >= 0) close(copy);
    if (pidfd >= 0) close(pidfd);
    return type == SOCK_SEQPACKET || type == SOCK_DGRAM;
}

static const char *counts(pid_t pid, pid_t thread, const struct ptrace_syscall_info *info) {
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        const struct call *call = &CALLS[i];
        if ((long)info->entry.nr != call->number) continue;
        long how;
        switch (call->kind) {
        case ALWAYS: return call->name;
        case TO_FD: return fd_counts(pid, (int)info->entry.args[0]) ? call->name : NULL;
        case CREATES:
            how = (long)info->entry.args[strcmp(call->name, "open") == 0 ? 1 : 2];
            return how & (O_CREAT | O_TRUNC) ? call->name : NULL;
        case OPEN_HOW:
            errno = 0;
            how = ptrace(PTRACE_PEEKDATA, thread, (void *)info->entry.args[2], NULL);
            return errno == 0 && how & (O_CREAT | O_TRUNC) ? call->name : NULL;
        }
    }
    return NULL;
}

static void seize_all(pid_t pid) {
    char path[64];
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) { perror(path); exit(2); }
    for (struct dirent *entry; (entry = readdir(tasks));) {
        pid_t thread = atoi(entry->d_name);
        if (thread <= 0) continue;
        /* EPERM: a thread that was born of a seized one is seized already. */
        if (ptrace(PTRACE_SEIZE, thread, NULL, options) == 0) ptrace(PTRACE_INTERRUPT, thread, NULL, NULL);
        else if (errno != EPERM && errno != ESRCH) { perror("PTRACE_SEIZE"); exit(2); }
    }
    closedir(tasks);
}

static void on_end(int signal) { (void)signal; }

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: kill_at PID N OUT\n"); return 2; }
    pid_t pid = atoi(argv[1]);
    long at = atol(argv[2]), count = 0;
    const char *killed = "-";
    /* waitpid cannot wait for standard input as well: a child does, and interrupts with a signal. */
    struct sigaction action = { .sa_handler = on_end };
    sigaction(SIGUSR1, &action, NULL);
    pid_t self = getpid(), watcher = fork();
    if (watcher == 0) {
        char byte;
        while (read(0, &byte, 1) > 0) { }
        kill(self, SIGUSR1);
        _exit(0);
    }
    seize_all(pid);
    puts("attached");
    fflush(stdout);
    for (;;) {
        int status;
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0 && errno == EINTR) break;
        if (thread < 0) break;
        if (thread == watcher) break;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == pid) break;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        long deliver = 0;
        if (signal == (SIGTRAP | 0x80)) {
            struct ptrace_syscall_info info;
            if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY) {
                const char *name = counts(pid, thread, &info);
                if (name && ++count == at) {
                    killed = name;
                    kill(pid, SIGKILL);
                    continue;
                }
            }
        } else if (event == 0) {
            deliver = signal;
        }
        ptrace(PTRACE_SYSCALL, thread, NULL, deliver);
    }
    FILE *out = fopen(argv[3], "w");
    if (!out) { perror(argv[3]); return 2; }
    fprintf(out, "%ld %s\n", count, killed);
    fclose(out);
    kill(watcher, SIGKILL);
    /* Ending detaches from what is still alive. */
    return 0;
}
