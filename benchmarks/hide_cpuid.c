/* Hide instruction sets from a process: a library to preload, built by instruction_sets.py.
 *
 * Linux on x86-64 lets a thread ask that the cpuid instruction fault (arch_prctl(2), since 4.12, on
 * processors with CPUID faulting). The handler here then answers for it: what the processor says,
 * less the bits in HIDE_CPUID. Libraries that choose their kernels by cpuid (onnxruntime, numpy,
 * torch) take those of a lesser processor. What is hidden still runs: nobody is stopped who does
 * not ask, such as glibc, which has asked before any library is loaded.
 *
 * HIDE_CPUID is five hexadecimal masks with ":" between: leaf 7.0 ebx, ecx, edx, leaf 7.1 eax, edx.
 *
 * Threads inherit the fault; a new program starts without, and gets it anew from the environment. A
 * program that handles SIGSEGV itself (Python's faulthandler) takes the handler's place, and fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012 /* of asm/prctl.h, whose older copies lack it */

static unsigned hidden_7_ebx, hidden_7_ecx, hidden_7_edx, hidden_71_eax, hidden_71_edx;

static long allow_cpuid(int allow) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allow); }

static void answer(int signal_number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
  unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
  unsigned eax = leaf, ebx, ecx = subleaf, edx;
  int kept_errno = errno;

  /* cpuid faults as SI_KERNEL. Other faults may, but then the instruction is there to be read; it
   * is not after a jump to nowhere, which is another kind. */
  if (info->si_code != SI_KERNEL || instruction[0] != 0x0f || instruction[1] != 0xa2) {
    signal(signal_number, SIG_DFL); /* a real fault: it happens again, and ends the process */
    return;
  }
  allow_cpuid(1);
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  allow_cpuid(0);
  if (leaf == 7 && subleaf == 0) {
    ebx &= ~hidden_7_ebx;
    ecx &= ~hidden_7_ecx;
    edx &= ~hidden_7_edx;
  } else if (leaf == 7 && subleaf == 1) {
    eax &= ~hidden_71_eax;
    edx &= ~hidden_71_edx;
  }
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += 2;
  errno = kept_errno;
}

__attribute__((constructor)) static void start(void) {
  const char *masks = getenv("HIDE_CPUID");
  struct sigaction action;

  if (!masks) return;
  if (sscanf(masks, "%x:%x:%x:%x:%x", &hidden_7_ebx, &hidden_7_ecx, &hidden_7_edx, &hidden_71_eax,
             &hidden_71_edx) != 5) {
    fprintf(stderr, "HIDE_CPUID is not five masks: %s\n", masks);
    _exit(2);
  }
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (sigaction(SIGSEGV, &action, NULL) || allow_cpuid(0)) {
    perror("no CPUID faulting: arch_prctl(ARCH_SET_CPUID)");
    _exit(2);
  }
}
