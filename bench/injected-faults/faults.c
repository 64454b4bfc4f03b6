/* Deaths that need no library, one for each -DDEATH. Built static and without a C library: small
 * enough to be carried in a command line. */
#define NR_WRITE 1
#define NR_EXIT 60
#define NR_PRCTL 157

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

__attribute__((noinline)) static long deeper(volatile long *above) {
    volatile long here[64];
    here[0] = *above + 1;
    return deeper(here) + here[1];
}

static const char text[] = "constant";
static volatile int zero;
static void (*volatile nowhere)(void) = (void (*)(void))0x700000001000;

/* seccomp: kill on getpid (39), allow the rest; struct sock_filter and sock_fprog of linux/filter.h. */
struct filter { unsigned short code; unsigned char jt, jf; unsigned int k; };
struct program { unsigned short length; struct filter *filters; };

__attribute__((noinline)) void injected(void) {
    switch (DEATH) {
    case 1: *(volatile int *)24 = 1; break;
    case 2: *(volatile char *)text = 2; break;
    case 3: nowhere(); break;
    case 4: { volatile long top[2] = {0}; deeper(top); break; }
    case 5: zero = 7 / zero; break;
    case 6: {
        struct filter filters[] = {{0x20, 0, 0, 0}, {0x15, 0, 1, 39}, {0x06, 0, 0, 0x80000000}, {0x06, 0, 0, 0x7fff0000}};
        struct program program = {4, filters};
        call(NR_PRCTL, 38, 1, 0);
        call(NR_PRCTL, 22, 2, (long)&program);
        call(39, 0, 0, 0);
        break;
    }
    }
}

__attribute__((force_align_arg_pointer)) void _start(void) {
    injected();
    call(NR_EXIT, 0, 0, 0);
}
