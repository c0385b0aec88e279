/* One QEMU process: started in its own session (setsid) so that it outlives the agent, with pid file,
 * log and sockets in its run folder; supervised by pidfd; found again after a restart of the agent.
 * Callbacks come from the loop only, never from within a call. After qemu_process_free() none comes. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "hypervisor/qmp.h"
#include "lib/err.h"

struct qemu_process;
struct qemu_process_callbacks {
	void (*on_ready)(void *data, struct qemu_process *qp);   /* both QMP sessions are up */
	void (*on_event)(void *data, struct qemu_process *qp, const char *event, json_t *event_data);
	/* The process has ended. exit_status: as wait(2) gave it, or -1 if it was not our child (adopted). log_tail: the last
	 * lines of its log, for people. qp stays valid until qemu_process_free(). */
	void (*on_exit)(void *data, struct qemu_process *qp, int exit_status, const char *log_tail);
	/* QMP could not be had or was lost while the process lives (it may be frozen by a stalled migration). Both sessions are
	 * tried again for as long as it lives: on_ready comes (again) when they are back. */
	void (*on_error)(void *data, struct qemu_process *qp, const struct err *err);
};
/* Starts argv (from qemu_args_build). run_dir exists (0700). log_path is appended to. Fails at once or reports by callbacks. */
int qemu_process_start(uv_loop_t *loop, char *const *argv, const char *run_dir, const char *log_path,
		       const struct qemu_process_callbacks *cb, void *data, struct qemu_process **ret, struct err *err);
/* Finds a running one by run_dir/pid (checked against its start time and binary, so that a recycled pid is not taken). -ESRCH if none. */
int qemu_process_adopt(uv_loop_t *loop, const char *run_dir, const char *log_path, const struct qemu_process_callbacks *cb, void *data,
		       struct qemu_process **ret, struct err *err);
struct qmp *qemu_process_qmp(struct qemu_process *qp);       /* NULL until ready, and while a session is lost */
struct qmp *qemu_process_qmp_oob(struct qemu_process *qp);   /* NULL until its own session is up; may be up while the other is frozen */
pid_t qemu_process_pid(const struct qemu_process *qp);
int qemu_process_pidfd(const struct qemu_process *qp);       /* borrowed */
bool qemu_process_alive(const struct qemu_process *qp);
int qemu_process_kill(struct qemu_process *qp, int signal);  /* by pidfd: never another process; -ESRCH if it has ended */
/* Releases our side only; a living QEMU goes on. Removes pid file and sockets if it has ended. NULL is allowed. */
void qemu_process_free(struct qemu_process *qp);
