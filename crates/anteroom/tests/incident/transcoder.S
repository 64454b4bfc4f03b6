# A program with AVX2 that asks nobody whether the processor has it.
.globl _start
_start:
    vpmovzxbd (%rsp), %ymm0
    ud2
