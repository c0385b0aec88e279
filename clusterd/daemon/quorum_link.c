#include "clusterd/daemon/quorum_link.h"

#include <corosync/votequorum.h>
#include <stdlib.h>

#include "lib/buf.h"

struct quorum_link {
	uv_timer_t timer;
	uv_work_t work;
	bool busy, closing;
	struct quorum_info info, asked;
};

static void work_ask(uv_work_t *work)
{
	struct quorum_link *ql = work->data;
	votequorum_handle_t handle;
	struct votequorum_info info;

	ql->asked = (struct quorum_info){0};
	if (votequorum_initialize(&handle, NULL) != CS_OK)
		return;
	if (votequorum_getinfo(handle, 0, &info) == CS_OK) {
		ql->asked.known = true;
		ql->asked.quorate = info.flags & VOTEQUORUM_INFO_QUORATE;
		ql->asked.expected_votes = info.node_expected_votes;
		ql->asked.total_votes = info.total_votes;
	}
	votequorum_finalize(handle);
}

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void work_asked(uv_work_t *work, int status)
{
	struct quorum_link *ql = work->data;

	ql->busy = false;
	ql->info = ql->asked;
	if (ql->closing)
		uv_close((uv_handle_t *)&ql->timer, on_timer_closed);
}

static void on_timer(uv_timer_t *timer)
{
	struct quorum_link *ql = timer->data;

	if (ql->busy)
		return;
	ql->work.data = ql;
	ql->busy = uv_queue_work(timer->loop, &ql->work, work_ask, work_asked) == 0;
}

struct quorum_link *quorum_link_new(uv_loop_t *loop)
{
	struct quorum_link *ql = mem_alloc(sizeof(*ql));

	uv_timer_init(loop, &ql->timer);
	ql->timer.data = ql;
	uv_timer_start(&ql->timer, on_timer, 1000, QUORUM_LINK_MS);
	return ql;
}

struct quorum_info quorum_link_info(const struct quorum_link *ql)
{
	return ql->info;
}

void quorum_link_close(struct quorum_link *ql)
{
	ql->closing = true;
	uv_timer_stop(&ql->timer);
	if (!ql->busy)
		uv_close((uv_handle_t *)&ql->timer, on_timer_closed);
}
