/* Carrying out a command and waiting for the task that it started, with progress on stderr. */
#pragma once

#include <stdint.h>

#include "clusterctl/command.h"
#include "proto/ctl.pb-c.h"

/* Waits until the task has ended. 0: it was done; *ret (owner: caller) is its end. Else inv->err says why not; or the exit
 * status: 130 for Ctrl-C, 124 for --timeout: the task goes on, and stderr says so. */
int job_wait(struct invocation *inv, uint64_t job_id, Gantry__CtlJob **ret);
/* Proposes, waits unless --no-wait, and prints the end: `done` for people ("web1 is started"; NULL: made from the task),
 * the task for programs. */
int job_run(struct invocation *inv, Gantry__Command *command, const char *done);
/* "web1 moved from hostA to hostB in 3.2 s, ..." Owner: caller. */
char *job_summary(const Gantry__CtlJob *end);
const char *job_stage_word(Gantry__MigrationStage stage);
