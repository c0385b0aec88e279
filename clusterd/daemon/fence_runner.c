#include "clusterd/daemon/fence_runner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fencing/fence_agent.h"
#include "lib/buf.h"
#include "lib/log.h"
#include "proto/pb.h"

struct run {
	struct run *next;
	struct fence_runner *fr;
	Gantry__Host *host;
	struct fence_run *fence;
	bool cancelled;
	/* Where it could not be begun: the failure is told from this timer, not from within the start. */
	uv_timer_t later;
	int rc;
	struct err err;
};

struct fence_runner {
	uv_loop_t *loop;
	fence_runner_cb cb;
	void *data;
	struct run *runs;
	size_t n_open;        /* runs that are not freed yet, also ended ones whose timer still closes */
	bool freed;
};

struct fence_runner *fence_runner_new(uv_loop_t *loop, fence_runner_cb cb, void *data)
{
	struct fence_runner *fr = mem_alloc(sizeof(*fr));

	fr->loop = loop;
	fr->cb = cb;
	fr->data = data;
	return fr;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct run *run = handle->data;
	struct fence_runner *fr = run->fr;

	gantry__host__free_unpacked(run->host, NULL);
	free(run);
	if (--fr->n_open == 0 && fr->freed)
		free(fr);
}

static void run_end(struct run *run, int rc, bool by_time, const char *text)
{
	struct fence_runner *fr = run->fr;
	struct run **at = &fr->runs;

	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	if (!run->cancelled)
		fr->cb(fr->data, run->host->name, rc, by_time, text);
	uv_close((uv_handle_t *)&run->later, on_timer_closed);
}

static void on_fenced(void *data, int rc, bool by_time, const char *proof, const struct err *err)
{
	struct run *run = data;
	const char *text = rc == 0 ? proof : err && err->text[0] ? err->text : strerror(-rc);

	if (!run->cancelled && rc == 0)
		log_notice("host %s is proven off: %s", run->host->name, text);
	else if (!run->cancelled)
		log_error("fencing of host %s failed: %s", run->host->name, text);
	run_end(run, rc, by_time, text);
}

static void on_later(uv_timer_t *timer)
{
	struct run *run = timer->data;

	run_end(run, run->rc, false, run->err.text);
}

void fence_runner_start(struct fence_runner *fr, const Gantry__Host *host)
{
	struct fence_target target;
	struct run *run;

	for (run = fr->runs; run; run = run->next)
		if (!run->cancelled && !strcmp(run->host->name, host->name))
			return;
	run = mem_alloc(sizeof(*run));
	run->fr = fr;
	run->host = pb_clone(host);
	run->next = fr->runs;
	fr->runs = run;
	fr->n_open++;
	uv_timer_init(fr->loop, &run->later);
	run->later.data = run;
	log_warning("fencing host %s", host->name);
	target = (struct fence_target){.host = run->host->name, .watchdog = run->host->watchdog, .devices = run->host->fence,
				       .n_devices = run->host->n_fence};
	run->rc = fence_off(fr->loop, &target, on_fenced, run, &run->fence, &run->err);
	if (run->rc < 0)
		uv_timer_start(&run->later, on_later, 0, 0);
}

void fence_runner_cancel_all(struct fence_runner *fr)
{
	for (struct run *run = fr->runs, *next; run; run = next) {
		next = run->next;
		if (run->cancelled)
			continue;
		run->cancelled = true;
		if (run->rc == 0)
			fence_cancel(run->fence);
	}
}

void fence_runner_free(struct fence_runner *fr)
{
	fr->freed = true;
	if (!fr->n_open) {
		free(fr);
		return;
	}
	fence_runner_cancel_all(fr);
}
