/* The load of `tools/bench log` and tests/lab/test_log.py: N clients that each have one command under way, over connections of
 * their own to the clusterd sockets given, in turn. A command is a note of a given packed size with a request id (client,
 * seq). On a lost connection, a host that cannot answer or one that says "try again" the client goes to the next
 * socket and repeats the same (client, seq), as often as it takes. Prints one JSON line of figures.
 * With --acked each acknowledged command is written to a file, one write() each, after its answer came. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"
#include "proto/ctl.pb-c.h"
#include "proto/rpc.h"

#define LOAD_CLIENTS_MAX 1024
#define LOAD_SOCKETS_MAX 16
#define LOAD_BYTES_MAX 4096
#define LOAD_RECONNECT_MS 20       /* a client that lost its host tries the next one after this */
#define LOAD_ANSWER_MS 20000       /* an answer that is later than this is taken for lost */
#define LOAD_DRAIN_MS 30000        /* commands under way at the end: so long they are waited for */

#define STATUS(x) GANTRY__STATUS__STATUS_##x

struct load;

struct client {
	struct load *load;
	char name[64];
	unsigned socket;           /* the one in use */
	uint64_t seq;
	char text[LOAD_BYTES_MAX + 1];
	struct rpc_conn *conn;
	uv_timer_t timer;          /* to reconnect, or that the answer is overdue */
	uint64_t sent_ns;
	bool open, under_way, done;
};

struct load {
	uv_loop_t loop;
	uv_timer_t clock;
	const char *name, *acked_path;
	const char *sockets[LOAD_SOCKETS_MAX];
	unsigned n_sockets, n_clients, bytes, clients_done;
	uint64_t commands;         /* 0: by time */
	double warm_s, seconds;
	struct client *clients;
	int acked_fd;
	bool measuring, stopping;
	uint64_t begin_ns, end_ns;
	uint32_t *latency_us;
	size_t n_latency, cap_latency;
	uint64_t started, acked, repeats, reconnects;
	char failure[256];
};

static void client_connect(struct client *client);

static void load_fail(struct load *load, const char *what)
{
	if (!load->failure[0])
		snprintf(load->failure, sizeof(load->failure), "%.250s", what);
	uv_stop(&load->loop);
}

/* ---- one command */

static size_t command_size(const Gantry__Command *command)
{
	return gantry__command__get_packed_size(command);
}

/* As it will stand in the log: what clusterd fills in has the same length here. */
static void command_fill(struct client *client, Gantry__Command *command, Gantry__CmdEventNote *note)
{
	gantry__command__init(command);
	gantry__cmd_event_note__init(note);
	command->version = 1;
	command->proposer = 1;
	command->time_ms = (uint64_t)time(NULL) * 1000;
	command->client = client->name;
	command->seq = client->seq;
	command->body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	command->event_note = note;
	note->severity = GANTRY__EVENT_SEVERITY__EVENT_INFO;
	note->subject = "load";
	note->kind = "load";
	note->text = client->text;
}

/* The text of the client's next note, so long that the command has the size asked for. */
static void client_next_text(struct client *client)
{
	Gantry__CmdEventNote note;
	Gantry__Command command;
	size_t len = (size_t)snprintf(client->text, sizeof(client->text), "%s-%llu:", client->name, (unsigned long long)client->seq);

	command_fill(client, &command, &note);
	while (len < LOAD_BYTES_MAX && command_size(&command) < client->load->bytes) {
		client->text[len] = (char)('a' + (client->seq + len) % 26);
		client->text[++len] = '\0';
	}
}

static void on_overdue(uv_timer_t *timer)
{
	struct client *client = timer->data;

	if (client->conn)
		rpc_conn_close(client->conn, NULL);
}

static void client_send(struct client *client)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlPropose propose = GANTRY__CTL_PROPOSE__INIT;
	Gantry__CmdEventNote note;
	Gantry__Command command;

	command_fill(client, &command, &note);
	propose.command = &command;
	message.id = client->seq;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_PROPOSE;
	message.propose = &propose;
	uv_timer_start(&client->timer, on_overdue, LOAD_ANSWER_MS, 0);
	/* If it fails the connection is closing and on_close() repeats it. */
	rpc_send_message(client->conn, FRAME_CTL, &message.base);
}

static bool load_is_enough(const struct load *load)
{
	return load->stopping || (load->commands && load->started >= load->commands);
}

static void client_end(struct client *client)
{
	client->done = true;
	uv_timer_stop(&client->timer);
	if (client->conn)
		rpc_conn_close(client->conn, NULL);
	if (++client->load->clients_done == client->load->n_clients)
		uv_stop(&client->load->loop);
}

static void client_next(struct client *client)
{
	struct load *load = client->load;

	if (load_is_enough(load)) {
		client_end(client);
		return;
	}
	load->started++;
	client->seq++;
	client->under_way = true;
	client_next_text(client);
	client->sent_ns = uv_hrtime();
	client_send(client);
}

/* ---- answers */

static void note_latency(struct load *load, uint64_t ns)
{
	if (load->n_latency == load->cap_latency) {
		load->cap_latency = load->cap_latency ? 2 * load->cap_latency : 65536;
		load->latency_us = mem_realloc(load->latency_us, load->cap_latency * sizeof(*load->latency_us));
	}
	load->latency_us[load->n_latency++] = (uint32_t)(ns / 1000);
}

static void write_acked(struct client *client)
{
	struct load *load = client->load;
	char line[LOAD_BYTES_MAX + 128];
	int len = snprintf(line, sizeof(line), "%s %llu %s\n", client->name, (unsigned long long)client->seq, client->text);

	if (load->acked_fd >= 0 && write(load->acked_fd, line, (size_t)len) != len)
		load_fail(load, "the file of acknowledged commands cannot be written");
}

static void client_acked(struct client *client)
{
	struct load *load = client->load;

	client->under_way = false;
	load->acked++;
	write_acked(client);
	if (load->measuring)
		note_latency(load, uv_hrtime() - client->sent_ns);
	client_next(client);
}

static bool is_to_repeat(Gantry__Status status)
{
	return status == STATUS(RETRY) || status == STATUS(UNAVAILABLE) || status == STATUS(NO_QUORUM) || status == STATUS(TIMEOUT);
}

static void client_answered(struct client *client, Gantry__Status status, const char *text)
{
	char what[256];

	if (status == STATUS(OK)) {
		client_acked(client);
	} else if (is_to_repeat(status)) {
		rpc_conn_close(client->conn, NULL);
	} else {
		snprintf(what, sizeof(what), "%s: command %llu was refused (%d): %.120s", client->name, (unsigned long long)client->seq,
			 (int)status, text);
		load_fail(client->load, what);
	}
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct client *client = data;
	Gantry__CtlMessage *m = gantry__ctl_message__unpack(NULL, frame->len, frame->payload);

	if (m && client->under_way && m->id == client->seq) {
		if (m->body_case == GANTRY__CTL_MESSAGE__BODY_RESULT && m->result->result)
			client_answered(client, m->result->result->status, m->result->result->text);
		else if (m->body_case == GANTRY__CTL_MESSAGE__BODY_ERROR)
			client_answered(client, m->error->status, m->error->text);
	}
	if (m)
		gantry__ctl_message__free_unpacked(m, NULL);
}

/* ---- connections */

static void on_open(struct rpc_conn *conn, void *data)
{
	struct client *client = data;

	client->open = true;
	if (client->under_way) {
		client->load->repeats++;
		client_send(client);
	} else {
		client_next(client);
	}
}

static void on_reconnect(uv_timer_t *timer)
{
	client_connect(timer->data);
}

static void client_reconnect_later(struct client *client)
{
	client->socket = (client->socket + 1) % client->load->n_sockets;
	client->load->reconnects++;
	uv_timer_start(&client->timer, on_reconnect, LOAD_RECONNECT_MS, 0);
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct client *client = data;

	client->conn = NULL;
	client->open = false;
	if (!client->done)
		client_reconnect_later(client);
}

static void client_connect(struct client *client)
{
	static const struct rpc_callbacks callbacks = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close};
	struct load *load = client->load;
	struct err err = {0};

	if (rpc_connect_unix(&load->loop, load->sockets[client->socket], 1u << FRAME_CTL, &callbacks, client, &client->conn, &err) < 0) {
		client->conn = NULL;
		client_reconnect_later(client);
	}
}

/* ---- the run */

static void on_drained(uv_timer_t *timer)
{
	load_fail(timer->data, "the last commands were not answered");
}

static void on_end(uv_timer_t *timer)
{
	struct load *load = timer->data;

	load->end_ns = uv_hrtime();
	load->measuring = false;
	load->stopping = true;
	uv_timer_start(timer, on_drained, LOAD_DRAIN_MS, 0);
}

static void on_warm(uv_timer_t *timer)
{
	struct load *load = timer->data;

	load->begin_ns = uv_hrtime();
	load->measuring = true;
	if (!load->commands)
		uv_timer_start(timer, on_end, (uint64_t)(load->seconds * 1000), 0);
}

static void load_run(struct load *load)
{
	uv_loop_init(&load->loop);
	uv_timer_init(&load->loop, &load->clock);
	load->clock.data = load;
	uv_timer_start(&load->clock, on_warm, (uint64_t)(load->warm_s * 1000), 0);
	load->clients = mem_alloc(load->n_clients * sizeof(*load->clients));
	for (unsigned i = 0; i < load->n_clients; i++) {
		struct client *client = &load->clients[i];

		client->load = load;
		client->socket = i % load->n_sockets;
		snprintf(client->name, sizeof(client->name), "%s-%02u", load->name, i);
		uv_timer_init(&load->loop, &client->timer);
		client->timer.data = client;
		client_connect(client);
	}
	uv_run(&load->loop, UV_RUN_DEFAULT);
	if (!load->end_ns)
		load->end_ns = uv_hrtime();
}

static void load_free(struct load *load)
{
	for (unsigned i = 0; i < load->n_clients; i++) {
		struct client *client = &load->clients[i];

		client->done = true;
		if (client->conn)
			rpc_conn_close(client->conn, NULL);
		uv_close((uv_handle_t *)&client->timer, NULL);
	}
	uv_close((uv_handle_t *)&load->clock, NULL);
	uv_run(&load->loop, UV_RUN_DEFAULT);
	uv_loop_close(&load->loop);
	free(load->clients);
	free(load->latency_us);
	if (load->acked_fd >= 0)
		close(load->acked_fd);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile_ms(const struct load *load, double part)
{
	return load->n_latency ? load->latency_us[(size_t)((double)(load->n_latency - 1) * part)] / 1000.0 : 0;
}

static void load_print(struct load *load)
{
	double seconds = load->begin_ns ? (double)(load->end_ns - load->begin_ns) / 1e9 : 0;
	Gantry__CmdEventNote note;
	Gantry__Command command;
	struct rusage use;

	qsort(load->latency_us, load->n_latency, sizeof(*load->latency_us), by_size);
	command_fill(&load->clients[0], &command, &note);
	getrusage(RUSAGE_SELF, &use);
	printf("{\"clients\": %u, \"seconds\": %.3f, \"commits\": %zu, \"per_s\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
	       "\"max_ms\": %.3f, \"acked\": %llu, \"repeats\": %llu, \"reconnects\": %llu, \"command_bytes\": %zu, \"cpu_s\": %.2f}\n",
	       load->n_clients, seconds, load->n_latency, seconds > 0 ? (double)load->n_latency / seconds : 0, percentile_ms(load, 0.5),
	       percentile_ms(load, 0.99), percentile_ms(load, 1), (unsigned long long)load->acked,
	       (unsigned long long)load->repeats, (unsigned long long)load->reconnects, command_size(&command),
	       (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
}

static const char usage[] =
	"Usage: log_load --socket PATH [--socket PATH]... [OPTION]...\n"
	"  --clients N     clients, each with one command under way (default 64)\n"
	"  --seconds S     so long is measured (default 10)\n"
	"  --warm S        before that so long is not (default 0)\n"
	"  --commands N    ends after so many commands instead\n"
	"  --bytes N       packed size of a command in the log (default 200)\n"
	"  --name TEXT     begins the clients' names: another one for each run\n"
	"  --acked FILE    appends 'client seq text' of each acknowledged command, after its answer came\n";

static int read_options(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'}, {"clients", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 't'},
		{"warm", required_argument, NULL, 'w'}, {"commands", required_argument, NULL, 'n'}, {"bytes", required_argument, NULL, 'b'},
		{"name", required_argument, NULL, 'i'}, {"acked", required_argument, NULL, 'a'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's' && load->n_sockets < LOAD_SOCKETS_MAX)
			load->sockets[load->n_sockets++] = optarg;
		else if (c == 'c')
			load->n_clients = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 't')
			load->seconds = strtod(optarg, NULL);
		else if (c == 'w')
			load->warm_s = strtod(optarg, NULL);
		else if (c == 'n')
			load->commands = strtoull(optarg, NULL, 10);
		else if (c == 'b')
			load->bytes = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'i')
			load->name = optarg;
		else if (c == 'a')
			load->acked_path = optarg;
		else
			return -1;
	}
	return optind == argc && load->n_sockets && load->n_clients >= 1 && load->n_clients <= LOAD_CLIENTS_MAX &&
		load->bytes <= LOAD_BYTES_MAX && strlen(load->name) <= 48 ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct load load = {.name = "load", .n_clients = 64, .seconds = 10, .bytes = 200, .acked_fd = -1};

	signal(SIGPIPE, SIG_IGN);
	if (read_options(&load, argc, argv) < 0) {
		fputs(usage, stderr);
		return 64;
	}
	if (load.acked_path)
		load.acked_fd = open(load.acked_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (load.acked_path && load.acked_fd < 0) {
		fprintf(stderr, "log_load: %s: %s\n", load.acked_path, strerror(errno));
		return 1;
	}
	load_run(&load);
	load_print(&load);
	if (load.failure[0])
		fprintf(stderr, "log_load: %s\n", load.failure);
	load_free(&load);
	return load.failure[0] ? 1 : 0;
}
