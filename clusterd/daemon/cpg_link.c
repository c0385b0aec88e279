#include "clusterd/daemon/cpg_link.h"

#include <corosync/cpg.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clusterd/daemon/cpg_bundle.h"
#include "clusterd/daemon/cpg_view.h"
#include "lib/buf.h"
#include "lib/limits.h"

#define CPG_LINK_GROUP "gantry"
#define CPG_LINK_FLUSH_MS 5    /* corosync said "try again": so soon */

enum link_state { LINK_WAITING, LINK_CONNECTING, LINK_JOINED, LINK_LEFT };

struct out_message {
	struct out_message *next;
	size_t len;
	uint8_t data[];
};

struct cpg_link {
	uv_loop_t *loop;
	struct cpg_link_callbacks callbacks;
	void *data;
	enum link_state state;
	struct cpg_view *view;
	cpg_handle_t handle;
	uint32_t node_id, pid;
	cs_error_t connect_rc;
	const char *connect_step;
	int fd;
	bool said_why;
	bool leaving;              /* for good */
	bool closing;
	const char *drop_why;      /* set in callbacks: the link is dropped when they have returned */
	unsigned handles;          /* uv handles that are not closed yet */
	uv_work_t work;
	uv_poll_t *poll;           /* one a connection: its close may outlive it */
	uv_timer_t retry, flush, hold;
	uv_idle_t turn_end;        /* before the loop waits again: what was sent in this turn goes as one message */
	struct out_message *head, **tail;
	size_t queued_bytes;
	unsigned outstanding;      /* sent, and not delivered to ourselves yet */
	uint64_t waiting_since_ms; /* the last delivery, or the first message sent after it */
};

/* A connection on its way out; it is nobody's. */
struct release {
	uv_work_t work;
	cpg_handle_t handle;
	bool leave;
};

static void link_drop(struct cpg_link *link, const char *why);

static struct cpg_name group_name(void)
{
	struct cpg_name name = {.length = sizeof(CPG_LINK_GROUP) - 1};

	memcpy(name.value, CPG_LINK_GROUP, name.length);
	return name;
}

static const char *words(cs_error_t rc)
{
	switch (rc) {
	case CS_ERR_LIBRARY:
		return "it does not run on this host";
	case CS_ERR_TRY_AGAIN:
		return "it is not ready yet";
	case CS_ERR_ACCESS:
		return "it does not let this user in";
	default:
		return cs_strerror(rc);
	}
}

/* ---- corosync's callbacks: translate only */

static void deliver_message(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *msg, size_t len)
{
	struct cpg_link *link = NULL;
	const uint8_t *part;
	size_t at = 0, part_len;

	if (cpg_context_get(handle, (void **)&link) != CS_OK || !link)
		return;
	if (nodeid == link->node_id && pid == link->pid && link->outstanding) {
		link->outstanding--;
		link->waiting_since_ms = uv_now(link->loop);
	}
	if (!cpg_bundle_is(msg, len)) {
		cpg_view_message(link->view, nodeid, msg, len);
		return;
	}
	while (cpg_bundle_next(msg, len, &at, &part, &part_len))
		cpg_view_message(link->view, nodeid, part, part_len);
}

static bool any_node_reason(const struct cpg_address *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].reason == CPG_REASON_NODEUP || list[i].reason == CPG_REASON_NODEDOWN)
			return true;
	return false;
}

static size_t copy_members(const struct cpg_address *from, size_t n, struct cpg_view_member *to)
{
	n = n < CPG_MEMBERS_MAX ? n : CPG_MEMBERS_MAX;
	for (size_t i = 0; i < n; i++)
		to[i] = (struct cpg_view_member){.node = from[i].nodeid, .pid = from[i].pid};
	return n;
}

static void deliver_members(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members, size_t n_members,
			    const struct cpg_address *left, size_t n_left, const struct cpg_address *joined, size_t n_joined)
{
	struct cpg_view_member list[CPG_MEMBERS_MAX], came[CPG_MEMBERS_MAX], went[CPG_MEMBERS_MAX];
	struct cpg_view_change change = {.nodes = any_node_reason(left, n_left) || any_node_reason(joined, n_joined), .joined = came, .left = went};
	struct cpg_link *link = NULL;

	if (cpg_context_get(handle, (void **)&link) != CS_OK || !link)
		return;
	change.n_joined = copy_members(joined, n_joined, came);
	change.n_left = copy_members(left, n_left, went);
	cpg_view_members(link->view, list, copy_members(members, n_members, list), &change, uv_now(link->loop));
}

static void deliver_ring(cpg_handle_t handle, struct cpg_ring_id ring, uint32_t n_members, const uint32_t *members)
{
	struct cpg_link *link = NULL;

	if (cpg_context_get(handle, (void **)&link) != CS_OK || !link)
		return;
	if (!link->leaving)
		link->callbacks.on_nodes(link->data, ring.nodeid, ring.seq, members, n_members);
	cpg_view_ring(link->view, ring.nodeid, ring.seq);
}

/* ---- connecting, in the thread pool */

static void work_connect(uv_work_t *work)
{
	struct cpg_link *link = work->data;
	struct cpg_name group = group_name();
	cpg_model_v1_data_t model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = deliver_message,
		.cpg_confchg_fn = deliver_members,
		.cpg_totem_confchg_fn = deliver_ring,
		.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF,
	};
	cs_error_t rc;

	link->connect_step = "connecting to corosync";
	rc = cpg_model_initialize(&link->handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, link);
	if (rc != CS_OK) {
		link->connect_rc = rc;
		return;
	}
	rc = cpg_local_get(link->handle, &link->node_id);
	if (rc == CS_OK) {
		link->connect_step = "joining corosync's process group";
		rc = cpg_join(link->handle, &group);
	}
	if (rc == CS_OK)
		rc = cpg_fd_get(link->handle, &link->fd);
	if (rc != CS_OK)
		cpg_finalize(link->handle);
	link->connect_rc = rc;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void poll_stop(struct cpg_link *link)
{
	if (!link->poll)
		return;
	link->poll->data = NULL;
	uv_close((uv_handle_t *)link->poll, on_poll_closed);
	link->poll = NULL;
}

static void close_now(struct cpg_link *link);

static void say_disconnected(struct cpg_link *link, const char *why)
{
	if (!link->said_why)
		link->callbacks.on_disconnected(link->data, why);
	link->said_why = true;
}

static void retry_later(struct cpg_link *link);

static void work_connected(uv_work_t *work, int status)
{
	struct cpg_link *link = work->data;
	char why[160];

	link->state = LINK_WAITING;
	if (link->connect_rc == CS_OK && (link->leaving || !link->callbacks.on_connected(link->data, link->node_id))) {
		cpg_finalize(link->handle);
		link->state = LINK_LEFT;
	} else if (link->connect_rc == CS_OK) {
		link->state = LINK_JOINED;
		link->said_why = false;
		link->outstanding = 0;
		cpg_view_reset(link->view);
		link->poll = mem_alloc(sizeof(*link->poll));
		link->poll->data = link;
		if (uv_poll_init(link->loop, link->poll, link->fd) < 0) {
			free(link->poll);
			link->poll = NULL;
			link_drop(link, "corosync's descriptor cannot be polled");
		} else {
			uv_poll_start(link->poll, UV_READABLE | UV_DISCONNECT, on_poll);
		}
	} else if (link->leaving) {
		link->state = LINK_LEFT;
	} else {
		snprintf(why, sizeof(why), "%s: %s", link->connect_step, words(link->connect_rc));
		say_disconnected(link, why);
		retry_later(link);
	}
	if (link->closing)
		close_now(link);
}

static void on_retry(uv_timer_t *timer)
{
	struct cpg_link *link = timer->data;

	if (link->state != LINK_WAITING || link->leaving)
		return;
	link->state = LINK_CONNECTING;
	link->work.data = link;
	if (uv_queue_work(link->loop, &link->work, work_connect, work_connected) < 0)
		link->state = LINK_WAITING;
}

static void retry_later(struct cpg_link *link)
{
	uv_timer_start(&link->retry, on_retry, CPG_LINK_RETRY_MS, 0);
}

/* ---- losing it */

static void queue_clear(struct cpg_link *link)
{
	while (link->head) {
		struct out_message *gone = link->head;

		link->head = gone->next;
		free(gone);
	}
	link->tail = &link->head;
	link->queued_bytes = 0;
	uv_timer_stop(&link->flush);
	uv_idle_stop(&link->turn_end);
}

static void work_release(uv_work_t *work)
{
	struct release *r = work->data;
	struct cpg_name group = group_name();

	if (r->leave)
		cpg_leave(r->handle, &group);
	cpg_finalize(r->handle);
}

static void work_released(uv_work_t *work, int status)
{
	free(work->data);
}

static void link_release(struct cpg_link *link, bool leave)
{
	struct release *r = mem_alloc(sizeof(*r));

	poll_stop(link);
	uv_timer_stop(&link->hold);
	queue_clear(link);
	cpg_view_reset(link->view);
	r->handle = link->handle;
	r->leave = leave;
	r->work.data = r;
	if (uv_queue_work(link->loop, &r->work, work_release, work_released) < 0)
		free(r);
}

static void link_drop(struct cpg_link *link, const char *why)
{
	if (link->state != LINK_JOINED)
		return;
	link_release(link, false);
	link->state = LINK_WAITING;
	link->drop_why = NULL;
	say_disconnected(link, why);
	retry_later(link);
}

/* ---- delivering */

static void on_hold(uv_timer_t *timer);
static void flush(struct cpg_link *link);

/* At most LIMIT_CPG_DISPATCH deliveries. True: nothing more is there. */
static bool dispatch(struct cpg_link *link)
{
	for (int i = 0; i < LIMIT_CPG_DISPATCH; i++) {
		cs_error_t rc = cpg_dispatch(link->handle, CS_DISPATCH_ONE_NONBLOCKING);

		if (link->state != LINK_JOINED)
			return false;
		if (rc == CS_ERR_TRY_AGAIN)
			return true;
		if (rc != CS_OK) {
			link_drop(link, rc == CS_ERR_LIBRARY ? "corosync is gone" : words(rc));
			return false;
		}
		if (link->drop_why) {
			link_drop(link, link->drop_why);
			return false;
		}
	}
	return false;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct cpg_link *link = poll->data;

	if (!link)
		return;
	if (status < 0) {
		link_drop(link, "corosync is gone");
		return;
	}
	dispatch(link);
	if (link->state == LINK_JOINED && link->head)
		flush(link);
	if (link->state == LINK_JOINED && cpg_view_is_holding(link->view) && !uv_is_active((uv_handle_t *)&link->hold))
		uv_timer_start(&link->hold, on_hold, CPG_VIEW_HOLD_MS, 20);
}

/* The loop may have been late itself: the ring counts as late only once corosync has nothing more for us. */
static void on_hold(uv_timer_t *timer)
{
	struct cpg_link *link = timer->data;

	if (dispatch(link))
		cpg_view_tick(link->view, uv_now(link->loop));
	if (link->state != LINK_JOINED || !cpg_view_is_holding(link->view))
		uv_timer_stop(timer);
}

static void sink_view(void *data, uint64_t id, const uint32_t *members, size_t n)
{
	struct cpg_link *link = data;

	if (!link->leaving)
		link->callbacks.on_view(link->data, id, members, n);
}

static void sink_message(void *data, uint32_t sender, const uint8_t *message, size_t len)
{
	struct cpg_link *link = data;

	if (!link->leaving)
		link->callbacks.on_message(link->data, sender, message, len);
}

/* ---- sending */

static cs_error_t send_now(struct cpg_link *link, const uint8_t *message, size_t len)
{
	struct iovec part = {.iov_base = (void *)message, .iov_len = len};
	cs_error_t rc;

	if (link->outstanding >= LIMIT_CPG_WINDOW)
		return CS_ERR_TRY_AGAIN;
	rc = cpg_mcast_joined(link->handle, CPG_TYPE_AGREED, &part, 1);
	if (rc == CS_OK && !link->outstanding++)
		link->waiting_since_ms = uv_now(link->loop);
	return rc;
}

static bool is_silent(const struct cpg_link *link)
{
	return link->outstanding && uv_now(link->loop) - link->waiting_since_ms >= CPG_LINK_SILENT_MS;
}

/* How many of the messages that wait go together, and their bytes as a bundle. */
static size_t take_bundle(const struct cpg_link *link, struct buf *bundle)
{
	size_t n = 0, bytes = 1;

	for (const struct out_message *m = link->head; m; m = m->next, n++) {
		bytes += CPG_BUNDLE_PART_BYTES(m->len);
		if (n && bytes > LIMIT_CPG_BUNDLE_BYTES)
			break;
		if (n == 1)
			cpg_bundle_add(bundle, link->head->data, link->head->len);
		if (n)
			cpg_bundle_add(bundle, m->data, m->len);
	}
	return n;
}

static void queue_pop(struct cpg_link *link)
{
	struct out_message *gone = link->head;

	link->head = gone->next;
	link->queued_bytes -= gone->len;
	free(gone);
	if (!link->head)
		link->tail = &link->head;
}

/* Sends what waits, until corosync takes no more for now. */
static cs_error_t send_waiting(struct cpg_link *link)
{
	struct buf bundle = {0};
	cs_error_t rc = CS_OK;

	while (link->head && rc == CS_OK) {
		size_t n;

		bundle.len = 0;
		n = take_bundle(link, &bundle);
		rc = n > 1 ? send_now(link, bundle.data, bundle.len) : send_now(link, link->head->data, link->head->len);
		for (size_t i = 0; rc == CS_OK && i < n; i++)
			queue_pop(link);
	}
	buf_free(&bundle);
	return rc;
}

static void on_flush(uv_timer_t *timer)
{
	flush(timer->data);
}

static void flush(struct cpg_link *link)
{
	cs_error_t rc = send_waiting(link);

	if (rc == CS_ERR_TRY_AGAIN) {
		if (!uv_is_active((uv_handle_t *)&link->flush))
			uv_timer_start(&link->flush, on_flush, CPG_LINK_FLUSH_MS, CPG_LINK_FLUSH_MS);
	} else if (rc != CS_OK) {
		link_drop(link, rc == CS_ERR_LIBRARY ? "corosync is gone" : words(rc));
	} else {
		uv_timer_stop(&link->flush);
	}
}

static void on_turn_end(uv_idle_t *idle)
{
	uv_idle_stop(idle);
	flush(idle->data);
}

static void enqueue(struct cpg_link *link, const uint8_t *message, size_t len)
{
	struct out_message *m = mem_alloc(sizeof(*m) + len);

	m->len = len;
	memcpy(m->data, message, len);
	*link->tail = m;
	link->tail = &m->next;
	link->queued_bytes += len;
	/* While corosync takes nothing the timer and the deliveries try again, not every turn. */
	if (!uv_is_active((uv_handle_t *)&link->flush))
		uv_idle_start(&link->turn_end, on_turn_end);
}

static void on_dropping(uv_timer_t *timer)
{
	struct cpg_link *link = timer->data;

	if (link->drop_why)
		link_drop(link, link->drop_why);
}

/* The caller is in the middle of its work: the link goes when that is over. */
static void drop_soon(struct cpg_link *link, const char *why)
{
	link->drop_why = why;
	uv_timer_start(&link->retry, on_dropping, 0, 0);
}

int cpg_link_send(struct cpg_link *link, const uint8_t *message, size_t len)
{
	if (link->state != LINK_JOINED || link->drop_why || link->leaving)
		return -ENOTCONN;
	if (len > LIMIT_CLOG_MESSAGE_BYTES)
		return -EMSGSIZE;
	if (is_silent(link)) {
		drop_soon(link, "corosync hangs: it does not deliver what it was given");
		return -ENOTCONN;
	}
	if (link->queued_bytes + len > LIMIT_CPG_QUEUE_BYTES) {
		drop_soon(link, "corosync takes no messages: too many wait to be sent");
		return -ENOTCONN;
	}
	enqueue(link, message, len);
	return 0;
}

/* ---- beginning and end */

struct cpg_link *cpg_link_new(uv_loop_t *loop, const struct cpg_link_callbacks *callbacks, void *data)
{
	static const struct cpg_view_sink sink = {.on_view = sink_view, .on_message = sink_message};
	struct cpg_link *link = mem_alloc(sizeof(*link));

	link->loop = loop;
	link->pid = (uint32_t)getpid();
	link->callbacks = *callbacks;
	link->data = data;
	link->tail = &link->head;
	link->view = cpg_view_new(&sink, link);
	uv_timer_init(loop, &link->retry);
	uv_timer_init(loop, &link->flush);
	uv_timer_init(loop, &link->hold);
	uv_idle_init(loop, &link->turn_end);
	link->retry.data = link->flush.data = link->hold.data = link->turn_end.data = link;
	uv_timer_start(&link->retry, on_retry, 0, 0);
	return link;
}

static void leave_now(struct cpg_link *link)
{
	/* The last words first. */
	if (link->state == LINK_JOINED)
		send_waiting(link);
	if (link->state == LINK_JOINED)
		link_release(link, true);
	if (link->state != LINK_CONNECTING)
		link->state = LINK_LEFT;
}

static void on_leaving(uv_timer_t *timer)
{
	leave_now(timer->data);
}

/* May be called in the middle of a delivery: the handle goes when that is over. */
void cpg_link_leave(struct cpg_link *link)
{
	link->leaving = true;
	link->drop_why = NULL;
	uv_timer_start(&link->retry, on_leaving, 0, 0);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct cpg_link *link = handle->data;
	void (*on_closed)(void *) = link->callbacks.on_closed;
	void *data = link->data;

	if (--link->handles)
		return;
	cpg_view_free(link->view);
	free(link);
	on_closed(data);
}

static void close_now(struct cpg_link *link)
{
	link->handles = 4;
	uv_close((uv_handle_t *)&link->retry, on_handle_closed);
	uv_close((uv_handle_t *)&link->flush, on_handle_closed);
	uv_close((uv_handle_t *)&link->hold, on_handle_closed);
	uv_close((uv_handle_t *)&link->turn_end, on_handle_closed);
}

void cpg_link_close(struct cpg_link *link)
{
	link->closing = link->leaving = true;
	leave_now(link);
	/* A connection that is being made is finished first: its worker uses our memory. */
	if (link->state != LINK_CONNECTING)
		close_now(link);
}
