#include "clusterd/daemon/quorum_link.h"

#include <corosync/cmap.h>
#include <corosync/quorum.h>
#include <corosync/votequorum.h>
#include <stdlib.h>

#include "lib/buf.h"

#define DEVICE_MODEL_KEY "quorum.device.model"

struct quorum_link {
	uv_timer_t timer;
	uv_work_t work;
	quorum_link_cb cb;
	void *data;
	bool busy, closing;
	struct quorum_info info;
	/* of the work */
	bool connected;
	votequorum_handle_t votes;
	quorum_handle_t quorum;
	cmap_handle_t config;
	struct quorum_info asked;
};

/* ---- in the thread pool */

static void on_quorum(quorum_handle_t handle, uint32_t quorate, struct quorum_ring_id ring, uint32_t n_members, const uint32_t *members)
{
	struct quorum_link *ql = NULL;

	if (quorum_context_get(handle, (const void **)&ql) != CS_OK || !ql)
		return;
	ql->asked.quorate = quorate;
	ql->asked.ring_node = ring.nodeid;
	ql->asked.ring_seq = ring.seq;
}

static void disconnect(struct quorum_link *ql)
{
	if (!ql->connected)
		return;
	votequorum_finalize(ql->votes);
	quorum_finalize(ql->quorum);
	cmap_finalize(ql->config);
	ql->connected = false;
}

static bool connect_all(struct quorum_link *ql)
{
	quorum_model_v1_data_t model = {.model = QUORUM_MODEL_V1, .quorum_notify_fn = on_quorum};
	uint32_t type;

	if (ql->connected)
		return true;
	if (votequorum_initialize(&ql->votes, NULL) != CS_OK)
		return false;
	if (quorum_model_initialize(&ql->quorum, QUORUM_MODEL_V1, (quorum_model_data_t *)&model, &type, ql) == CS_OK) {
		if (cmap_initialize(&ql->config) == CS_OK) {
			ql->connected = true;
			return true;
		}
		quorum_finalize(ql->quorum);
	}
	votequorum_finalize(ql->votes);
	return false;
}

static bool ask_device(struct quorum_link *ql)
{
	char *model = NULL;
	cs_error_t rc = cmap_get_string(ql->config, DEVICE_MODEL_KEY, &model);

	ql->asked.device_configured = rc == CS_OK;
	free(model);
	return rc == CS_OK || rc == CS_ERR_NOT_EXIST;
}

static bool ask(struct quorum_link *ql)
{
	const unsigned voting = VOTEQUORUM_INFO_QDEVICE_REGISTERED | VOTEQUORUM_INFO_QDEVICE_ALIVE | VOTEQUORUM_INFO_QDEVICE_CAST_VOTE;
	struct votequorum_info info;

	if (!connect_all(ql) || !ask_device(ql))
		return false;
	/* The answer comes as a notification, before the one to the asking or with it. */
	if (quorum_trackstart(ql->quorum, CS_TRACK_CURRENT) != CS_OK || quorum_dispatch(ql->quorum, CS_DISPATCH_ALL) != CS_OK)
		return false;
	if (votequorum_getinfo(ql->votes, 0, &info) != CS_OK)
		return false;
	ql->asked.device_votes = (info.flags & voting) == voting;
	ql->asked.expected_votes = info.node_expected_votes;
	ql->asked.total_votes = info.total_votes;
	return true;
}

static void work_ask(uv_work_t *work)
{
	struct quorum_link *ql = work->data;

	ql->asked = (struct quorum_info){0};
	if (ask(ql)) {
		ql->asked.known = true;
	} else {
		disconnect(ql);
		ql->asked = (struct quorum_info){0};
	}
}

/* ---- on the loop */

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void end(struct quorum_link *ql)
{
	disconnect(ql);
	uv_close((uv_handle_t *)&ql->timer, on_timer_closed);
}

static void work_asked(uv_work_t *work, int status)
{
	struct quorum_link *ql = work->data;

	ql->busy = false;
	ql->info = ql->asked;
	if (ql->closing)
		end(ql);
	else
		ql->cb(ql->data, &ql->info);
}

static void on_timer(uv_timer_t *timer)
{
	struct quorum_link *ql = timer->data;

	if (ql->busy)
		return;
	ql->work.data = ql;
	ql->busy = uv_queue_work(timer->loop, &ql->work, work_ask, work_asked) == 0;
}

struct quorum_link *quorum_link_new(uv_loop_t *loop, quorum_link_cb cb, void *data)
{
	struct quorum_link *ql = mem_alloc(sizeof(*ql));

	ql->cb = cb;
	ql->data = data;
	uv_timer_init(loop, &ql->timer);
	ql->timer.data = ql;
	uv_timer_start(&ql->timer, on_timer, QUORUM_LINK_MS, QUORUM_LINK_MS);
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
		end(ql);
}
