/* Loaded into a keeper (LD_PRELOAD): clocks that are wrong, and a fork that fails, for as long as a file says so.
 *
 * The file named by TAGFALL_TEST_SHIM holds three 64-bit numbers: by how many seconds CLOCK_REALTIME is off, by how many
 * CLOCK_BOOTTIME is ahead (as after a sleep of the machine), and the error that fork(2) fails with (0: it does not).
 *
 * Programs read clocks without the C library, in the code that the kernel maps into every process; its entry is replaced in
 * this process alone. Where that cannot be done, nothing is shifted, and the first number reads -1 from then on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *said;

static long call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "system calls of this machine are not known here"
#endif
}

static int wrong_clock(clockid_t clock, struct timespec *time) {
    long result = call(SYS_clock_gettime, clock, (long)time, 0, 0, 0, 0);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += said[0];
    if (result == 0 && clock == CLOCK_BOOTTIME) time->tv_sec += said[1];
    return (int)result;
}

/* Where the kernel's code for reading clocks begins. */
static unsigned char *entry(void) {
    unsigned char *image = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
    if (image == NULL) return NULL;
    Elf64_Ehdr *head = (Elf64_Ehdr *)image;
    Elf64_Shdr *sections = (Elf64_Shdr *)(image + head->e_shoff);
    for (int at = 0; at < head->e_shnum; at++) {
        if (sections[at].sh_type != SHT_DYNSYM) continue;
        Elf64_Sym *symbols = (Elf64_Sym *)(image + sections[at].sh_offset);
        const char *names = (const char *)(image + sections[sections[at].sh_link].sh_offset);
        for (size_t one = 0; one < sections[at].sh_size / sizeof *symbols; one++) {
            const char *name = names + symbols[one].st_name;
            if (strcmp(name, "__vdso_clock_gettime") == 0 || strcmp(name, "__kernel_clock_gettime") == 0)
                return image + symbols[one].st_value;
        }
    }
    return NULL;
}

/* Makes the code there jump to ours. */
static int replace(unsigned char *code) {
    void *target = (void *)wrong_clock;
#if defined(__x86_64__)
    unsigned char jump[] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    memcpy(jump + 2, &target, sizeof target);
#else
    unsigned char jump[] = {0x50, 0, 0, 0x58, 0, 2, 0x1f, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0};
    memcpy(jump + 8, &target, sizeof target);
#endif
    /* The kernel changes the whole of it or nothing; a kernel that seals it, nothing. */
    unsigned char *image = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
    Elf64_Ehdr *head = (Elf64_Ehdr *)image;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = head->e_shoff + (size_t)head->e_shnum * head->e_shentsize;
    size_t length = (end + page - 1) / page * page;
    if (mprotect(image, length, PROT_READ | PROT_WRITE) != 0) return -1;
    memcpy(code, jump, sizeof jump);
    if (mprotect(image, length, PROT_READ | PROT_EXEC) != 0) return -1;
    __builtin___clear_cache((char *)code, (char *)code + sizeof jump);
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TAGFALL_TEST_SHIM");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *map = mmap(NULL, 3 * sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) return;
    said = map;
    unsigned char *code = entry();
    if (code == NULL || replace(code) != 0) said[0] = -1;
}

pid_t fork(void) {
    pid_t (*real)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
    if (said != NULL && said[2] != 0) {
        errno = (int)said[2];
        return -1;
    }
    return real();
}

long syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    long words[6];
    for (int at = 0; at < 6; at++) words[at] = va_arg(rest, long);
    va_end(rest);
    long result = number == SYS_clone3 && said != NULL && said[2] != 0 ? -(long)said[2]
                                                                       : call(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}
