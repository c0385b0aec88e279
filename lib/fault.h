/* Faults on demand, for tests only: a daemon with GANTRY_FAULT=NAME=exit or NAME=pause in its environment dies or stands
 * still at the point of this name ("migrate.source.pre-copy"). Without it a point costs one branch.
 * With GANTRY_FAULT_FILE=PATH the same text is looked for in that file at each point, so that a test can arm a daemon that runs; the
 * file is removed when its point is hit, so that a daemon that was started again does not die there again.
 *   exit: _exit(1), as if killed. pause: the whole process waits until the file PATH_RUN/fault-continue exists. */
#pragma once

#include <stdbool.h>

extern bool fault_armed;

/* Reads the environment once; call it first thing in main(). */
void fault_init(void);
void fault__hit(const char *name);

static inline void fault_point(const char *name)
{
	if (__builtin_expect(fault_armed, 0))
		fault__hit(name);
}
