#include "clusterctl/ctl_client.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/paths.h"
#include "proto/pb.h"
#include "proto/rpc.h"

#define CONNECT_TIMEOUT_MS 5000
#define CLIENT_ID_CHARS 32

struct ctl_client {
	struct ctl_options options;
	uv_loop_t loop;
	uv_timer_t timer;
	uv_signal_t sigint, sigterm;
	struct tls_context *own_tls;
	struct rpc_conn *conn;
	bool open;
	int close_rc;
	struct err close_err;
	Gantry__CtlMessage **inbox;
	size_t n_inbox;
	uint64_t next_id, seq;
	char id[CLIENT_ID_CHARS + 1];
	bool interrupted, timer_fired;
};

uint64_t ctl_now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static void on_signal(uv_signal_t *handle, int signum)
{
	ctl_client_interrupt(handle->data);
}

void ctl_client_interrupt(struct ctl_client *c)
{
	c->interrupted = true;
}

static void on_timer(uv_timer_t *timer)
{
	((struct ctl_client *)timer->data)->timer_fired = true;
}

static int make_id(struct ctl_client *c, struct err *err)
{
	uint8_t random[CLIENT_ID_CHARS / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_set(err, errno, "the system gives no random numbers: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(c->id + 2 * i, 3, "%02x", random[i]);
	return 0;
}

int ctl_client_new(const struct ctl_options *options, struct ctl_client **ret, struct err *err)
{
	struct ctl_client *c = mem_alloc(sizeof(*c));
	int rc = make_id(c, err);

	if (rc < 0) {
		free(c);
		return rc;
	}
	c->options = *options;
	if (c->options.socket == NULL)
		c->options.socket = PATH_CTL_SOCKET;
	if (c->options.timeout_ms == 0)
		c->options.timeout_ms = CTL_ANSWER_TIMEOUT_MS;
	rc = uv_loop_init(&c->loop);
	if (rc < 0) {
		free(c);
		return err_set(err, -rc, "no event loop: %s", strerror(-rc));
	}
	uv_timer_init(&c->loop, &c->timer);
	uv_signal_init(&c->loop, &c->sigint);
	uv_signal_init(&c->loop, &c->sigterm);
	c->timer.data = c->sigint.data = c->sigterm.data = c;
	uv_signal_start(&c->sigint, on_signal, SIGINT);
	uv_signal_start(&c->sigterm, on_signal, SIGTERM);
	/* They must not keep the loop running when nothing else does. */
	uv_unref((uv_handle_t *)&c->sigint);
	uv_unref((uv_handle_t *)&c->sigterm);
	*ret = c;
	return 0;
}

static void inbox_clear(struct ctl_client *c)
{
	for (size_t i = 0; i < c->n_inbox; i++)
		gantry__ctl_message__free_unpacked(c->inbox[i], NULL);
	free(c->inbox);
	c->inbox = NULL;
	c->n_inbox = 0;
}

void ctl_disconnect(struct ctl_client *c)
{
	if (c->conn != NULL)
		rpc_conn_close(c->conn, NULL);
	while (c->conn != NULL)
		uv_run(&c->loop, UV_RUN_ONCE);
	inbox_clear(c);
}

void ctl_client_free(struct ctl_client *c)
{
	if (c == NULL)
		return;
	ctl_disconnect(c);
	uv_close((uv_handle_t *)&c->timer, NULL);
	uv_close((uv_handle_t *)&c->sigint, NULL);
	uv_close((uv_handle_t *)&c->sigterm, NULL);
	uv_run(&c->loop, UV_RUN_DEFAULT);
	uv_loop_close(&c->loop);
	tls_context_free(c->own_tls);
	free(c);
}

uv_loop_t *ctl_client_loop(struct ctl_client *c)
{
	return &c->loop;
}

/* ---- the connection */

static void on_open(struct rpc_conn *conn, void *data)
{
	((struct ctl_client *)data)->open = true;
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct ctl_client *c = data;
	Gantry__CtlMessage *message = gantry__ctl_message__unpack(NULL, frame->len, frame->payload);

	if (message == NULL) {
		rpc_conn_close(conn, "clusterctl cannot read this answer");
		return;
	}
	c->inbox = mem_realloc(c->inbox, (c->n_inbox + 1) * sizeof(*c->inbox));
	c->inbox[c->n_inbox++] = message;
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct ctl_client *c = data;

	c->conn = NULL;
	c->open = false;
	c->close_rc = rc < 0 ? rc : -ECONNRESET;
	c->close_err = (struct err){0};
	if (rc < 0 && err != NULL)
		c->close_err = *err;
	else
		err_set(&c->close_err, ECONNRESET, "clusterd closed the connection");
}

/* One turn of the loop, with the timer set for the deadline (0: none). */
static int turn(struct ctl_client *c, uint64_t deadline_ms, struct err *err)
{
	uint64_t now = ctl_now_ms();

	if (c->interrupted)
		return err_set_status(err, EINTR, 130, "interrupted");
	if (deadline_ms != 0 && now >= deadline_ms)
		return err_set_status(err, ETIMEDOUT, GANTRY__STATUS__STATUS_TIMEOUT, "no answer in time");
	if (deadline_ms != 0) {
		uv_update_time(&c->loop);
		uv_timer_start(&c->timer, on_timer, deadline_ms - now, 0);
	}
	uv_run(&c->loop, UV_RUN_ONCE);
	uv_timer_stop(&c->timer);
	return 0;
}

int ctl_pause(struct ctl_client *c, uint32_t ms, struct err *err)
{
	uint64_t deadline = ctl_now_ms() + ms;
	int rc = 0;

	while (rc == 0)
		rc = turn(c, deadline, err);
	return rc == -ETIMEDOUT ? 0 : rc;
}

static int fail_unreachable(struct ctl_client *c, int rc, const struct err *why, struct err *err)
{
	const char *socket = c->options.socket;

	if (c->options.host != NULL && rc == -EACCES)
		return err_set_status(err, EACCES, GANTRY__STATUS__STATUS_PERMISSION, "%s", why->text);
	if (c->options.host != NULL)
		return err_set_status(err, -rc, GANTRY__STATUS__STATUS_UNAVAILABLE, "clusterd of %s does not answer: %s",
				      c->options.host, why->text);
	if (rc == -EACCES || rc == -EPERM)
		return err_set_status(err, EACCES, GANTRY__STATUS__STATUS_PERMISSION,
				      "%s may not be used by this user: run clusterctl as root", socket);
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return err_set_status(err, ECONNREFUSED, GANTRY__STATUS__STATUS_UNAVAILABLE,
				      "clusterd does not run on this host (%s %s): systemctl start clusterd",
				      rc == -ENOENT ? "no" : "nobody listens on", socket);
	return err_set_status(err, -rc, GANTRY__STATUS__STATUS_UNAVAILABLE, "clusterd at %s does not answer: %s", socket,
			      why->text);
}

static int start_connect(struct ctl_client *c, struct err *err)
{
	static const struct rpc_callbacks callbacks = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close};

	if (c->options.host == NULL)
		return rpc_connect_unix(&c->loop, c->options.socket, 1u << FRAME_CTL, &callbacks, c, &c->conn, err);
	if (c->options.tls == NULL) {
		int rc = tls_context_load(PATH_PKI_CA, PATH_PKI_CERT, PATH_PKI_KEY, &c->own_tls, err);
		if (rc < 0)
			return rc;
		c->options.tls = c->own_tls;
	}
	return rpc_connect_tls(&c->loop, c->options.host, PORT_CTL, c->options.tls, NULL, CONNECT_TIMEOUT_MS, 1u << FRAME_CTL,
			       &callbacks, c, &c->conn, err);
}

/* One attempt. -EINTR; -ENOTCONN: why not is in close_rc and close_err. */
static int connect_once(struct ctl_client *c, struct err *err)
{
	struct err why = {0};
	int rc;

	inbox_clear(c);
	if (c->conn == NULL) {
		rc = start_connect(c, &why);
		if (rc < 0) {
			c->close_rc = rc;
			c->close_err = why;
			return -ENOTCONN;
		}
	}
	uint64_t deadline = ctl_now_ms() + CONNECT_TIMEOUT_MS + 1000;
	while (!c->open && c->conn != NULL) {
		rc = turn(c, deadline, err);
		if (rc < 0)
			return rc;
	}
	return c->open ? 0 : -ENOTCONN;
}

int ctl_connect(struct ctl_client *c, struct err *err)
{
	uint64_t began = ctl_now_ms();

	if (c->open)
		return 0;
	for (;;) {
		int rc = connect_once(c, err);
		if (rc != -ENOTCONN)
			return rc;
		/* A socket that nobody listens on is what a daemon leaves that was killed: it is about to be started again. */
		if (c->options.host != NULL || c->close_rc != -ECONNREFUSED || ctl_now_ms() - began >= CTL_RESTART_MS)
			return fail_unreachable(c, c->close_rc, &c->close_err, err);
		rc = ctl_pause(c, CTL_RETRY_PAUSE_MS, err);
		if (rc < 0)
			return rc;
	}
}

/* ---- messages */

int ctl_send(struct ctl_client *c, Gantry__CtlMessage *message, uint64_t *ret_id, struct err *err)
{
	if (!c->open)
		return err_set_status(err, ENOTCONN, GANTRY__STATUS__STATUS_UNAVAILABLE, "the connection to clusterd is lost");
	message->id = ++c->next_id;
	int rc = rpc_send_message(c->conn, FRAME_CTL, &message->base);
	if (rc < 0)
		return err_set_status(err, -rc, GANTRY__STATUS__STATUS_UNAVAILABLE, "the request cannot be sent to clusterd: %s",
				      strerror(-rc));
	*ret_id = message->id;
	return 0;
}

/* Takes the first message of this id out of the inbox; answers to requests that nobody waits for are dropped. */
static Gantry__CtlMessage *inbox_take(struct ctl_client *c, uint64_t id)
{
	Gantry__CtlMessage *found = NULL;
	size_t kept = 0;

	for (size_t i = 0; i < c->n_inbox; i++) {
		if (found == NULL && c->inbox[i]->id == id)
			found = c->inbox[i];
		else if (c->inbox[i]->id == id)
			c->inbox[kept++] = c->inbox[i];
		else
			gantry__ctl_message__free_unpacked(c->inbox[i], NULL);
	}
	c->n_inbox = kept;
	return found;
}

static int remote_error(Gantry__Status status, const char *text, struct err *err)
{
	return err_set_status(err, status == GANTRY__STATUS__STATUS_RETRY ? EAGAIN : EREMOTEIO,
			      status == GANTRY__STATUS__STATUS_OK ? GANTRY__STATUS__STATUS_FAILED : status, "%s", text);
}

int ctl_receive(struct ctl_client *c, uint64_t id, uint64_t deadline_ms, Gantry__CtlMessage **ret, struct err *err)
{
	for (;;) {
		Gantry__CtlMessage *message = inbox_take(c, id);
		if (message != NULL && message->body_case == GANTRY__CTL_MESSAGE__BODY_ERROR) {
			int rc = remote_error(message->error->status, message->error->text, err);
			gantry__ctl_message__free_unpacked(message, NULL);
			return rc;
		}
		if (message != NULL) {
			*ret = message;
			return 0;
		}
		if (c->conn == NULL) {
			err_set_status(err, -c->close_rc, GANTRY__STATUS__STATUS_UNAVAILABLE, "the connection to clusterd is lost: %s",
				       c->close_err.text);
			return -ENOTCONN;
		}
		int rc = turn(c, deadline_ms, err);
		if (rc < 0)
			return rc;
	}
}

static int call_once(struct ctl_client *c, Gantry__CtlMessage *request, Gantry__CtlMessage__BodyCase want,
		     uint64_t deadline_ms, Gantry__CtlMessage **ret, struct err *err)
{
	Gantry__CtlMessage *answer = NULL;
	uint64_t id;
	int rc = ctl_connect(c, err);

	if (rc == 0)
		rc = ctl_send(c, request, &id, err);
	if (rc == 0)
		rc = ctl_receive(c, id, deadline_ms, &answer, err);
	if (rc < 0)
		return rc;
	if (answer->body_case != want) {
		gantry__ctl_message__free_unpacked(answer, NULL);
		return err_set_status(err, EREMOTEIO, GANTRY__STATUS__STATUS_FAILED,
				      "clusterd gave an answer that this clusterctl (%s) does not know", GANTRY_VERSION);
	}
	if (want == GANTRY__CTL_MESSAGE__BODY_RESULT && answer->result->result != NULL) {
		/* A refusal with a place in the log is final: the same command would be given the same answer again. */
		const Gantry__CommandResult *result = answer->result->result;
		if (result->status != GANTRY__STATUS__STATUS_OK) {
			rc = remote_error(result->status, result->text, err);
			rc = rc == -EAGAIN && result->log_index != 0 ? -EREMOTEIO : rc;
			gantry__ctl_message__free_unpacked(answer, NULL);
			return rc;
		}
	}
	*ret = answer;
	return 0;
}

static bool is_lost(int rc)
{
	return rc != 0 && rc != -EINTR && rc != -ETIMEDOUT && rc != -EREMOTEIO && rc != -EAGAIN;
}

int ctl_call(struct ctl_client *c, Gantry__CtlMessage *request, Gantry__CtlMessage__BodyCase want,
	     Gantry__CtlMessage **ret, struct err *err)
{
	uint64_t deadline = ctl_now_ms() + c->options.timeout_ms, lost_at = 0;
	bool was_connected = false;

	for (;;) {
		struct err why = {0};
		int rc = call_once(c, request, want, deadline, ret, &why);

		was_connected = was_connected || c->open || rc == -ENOTCONN;
		if (rc == -ETIMEDOUT)
			err_set_status(&why, ETIMEDOUT, GANTRY__STATUS__STATUS_TIMEOUT,
				       "clusterd has not answered within %u s; what was asked for may still be done",
				       c->options.timeout_ms / 1000);
		if (rc == 0 || rc == -EINTR || rc == -ETIMEDOUT || rc == -EREMOTEIO || (is_lost(rc) && !was_connected)) {
			if (err != NULL && rc < 0)
				*err = why;
			return rc;
		}
		uint64_t now = ctl_now_ms();
		if (!is_lost(rc))
			lost_at = 0;
		else if (lost_at == 0)
			lost_at = now;
		if (now + CTL_RETRY_PAUSE_MS >= deadline || (lost_at != 0 && now - lost_at >= CTL_RECONNECT_MS)) {
			if (err != NULL)
				*err = why;
			return rc;
		}
		rc = ctl_pause(c, CTL_RETRY_PAUSE_MS, err);
		if (rc < 0)
			return rc;
	}
}

int ctl_propose(struct ctl_client *c, Gantry__Command *command, Gantry__CommandResult **ret, struct err *err)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *answer = NULL;
	Gantry__CtlPropose propose = GANTRY__CTL_PROPOSE__INIT;

	command->client = c->id;
	command->seq = ++c->seq;
	propose.command = command;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_PROPOSE;
	request.propose = &propose;
	int rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_RESULT, &answer, err);
	command->client = (char *)protobuf_c_empty_string;
	if (rc < 0)
		return rc;
	if (ret != NULL) {
		*ret = answer->result->result ? answer->result->result :
						PB_NEW(Gantry__CommandResult, gantry__command_result__init);
		answer->result->result = NULL;
	}
	gantry__ctl_message__free_unpacked(answer, NULL);
	return 0;
}
