"""A tool that throws away what was typed before it reads, as getpass and many others do (TCSAFLUSH).

Its argument says when: `asked` right after it has asked, `answered` when the first answer is there, so
that this one is always lost. `quiet` behind it: what is typed is not shown.
"""

import select
import sys
import termios

FD = sys.stdin.fileno()
when, *more = sys.argv[1:]

print("Store the token? (y/N) ", end="", flush=True)
if when == "answered":
    select.select([FD], [], [])
mode = termios.tcgetattr(FD)
if more:
    mode[3] &= ~termios.ECHO
termios.tcsetattr(FD, termios.TCSAFLUSH, mode)
answer = sys.stdin.readline().strip()
print(f"\nThe answer is {answer!r}.", flush=True)
