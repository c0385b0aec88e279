/* The pid file of a QEMU: "PID STARTTIME BINARY". The start time (field 22 of /proc/PID/stat, clock ticks since boot)
 * and the binary tell our process from a stranger that got the same pid later. */
#pragma once

#include <sys/types.h>

#include "lib/err.h"

int pidfile_write(const char *path, pid_t pid, struct err *err);
/* -ESRCH: no file, no such process, or another one under this pid (the text says which). A good result is only good while a
 * pidfd that was opened before the check is held: *ret_pidfd, owned by the caller. */
int pidfile_find(const char *path, pid_t *ret_pid, int *ret_pidfd, struct err *err);
