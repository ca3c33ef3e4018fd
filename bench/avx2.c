/* A processor with AVX-512 or VNNI that says it has neither: figures for AVX2-only machines, taken on a newer one.
 *
 *     gcc -shared -fPIC -O1 -o /tmp/avx2.so bench/avx2.c
 *     LD_PRELOAD=/tmp/avx2.so python bench/int8.py LABELS.csv
 *
 * Linux on x86-64 with CPUID faulting (`cpuid_fault` in /proc/cpuinfo). Every CPUID instruction of the process and its
 * threads traps; the handler executes it and clears the bits of AVX-512, AVX-VNNI and AMX, so that libraries choose
 * their AVX2 code. Ratios are those of such a machine but for its clock and caches. Processes that are forked see the
 * processor as it is (torch's loaders put a SIGSEGV handler of their own over this one), and so do programs that are
 * started (a compiler does not bear it): LD_PRELOAD leaves the environment.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

#define BIT(n) (1u << (n))

static void allow_cpuid(long allowed) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void answer(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], a, b, c, d;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* no CPUID: a true fault */
        signal(number, SIG_DFL);
        return;
    }
    (void)info;
    allow_cpuid(1);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
    allow_cpuid(0);
    if (leaf == 7 && subleaf == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    } else if (leaf == 7 && subleaf == 1) {
        a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void forked(void) { allow_cpuid(1); }

__attribute__((constructor)) static void start(void)
{
    unsetenv("LD_PRELOAD");
    pthread_atfork(NULL, NULL, forked);
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
        static const char text[] = "avx2.so: this processor or kernel cannot trap CPUID\n";
        if (write(2, text, sizeof text - 1) < 0)
            abort();
        _exit(2);
    }
}
