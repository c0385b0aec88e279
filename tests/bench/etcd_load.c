/* The same load as log_load.c for etcd: N clients that each have one put of a given size under way, over keep-alive
 * HTTP/1.1 connections of their own to etcd's JSON gateway (POST /v3/kv/put). Prints one JSON line of figures. It bears no
 * faults: whatever goes wrong ends it. */
#include <arpa/inet.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "lib/buf.h"

#define LOAD_CLIENTS_MAX 1024
#define LOAD_ADDRESSES_MAX 16
#define LOAD_BYTES_MAX 3072
#define KEY_CHARS 16
#define REQUEST_BYTES (2 * LOAD_BYTES_MAX)
#define ANSWER_BYTES 4096

struct load;

struct client {
	struct load *load;
	uv_tcp_t tcp;
	uv_connect_t connecting;
	uv_write_t write;
	unsigned number;
	uint64_t seq, sent_ns;
	char request[REQUEST_BYTES];
	char answer[ANSWER_BYTES];
	size_t answer_len;
};

struct load {
	uv_loop_t loop;
	uv_timer_t clock;
	const char *addresses[LOAD_ADDRESSES_MAX];
	unsigned n_addresses, n_clients, bytes;
	int port;
	double warm_s, seconds;
	bool measuring, closing;
	uint64_t begin_ns, end_ns;
	uint32_t *latency_us;
	size_t n_latency, cap_latency;
	char failure[256];
};

static void load_fail(struct load *load, const char *what)
{
	if (!load->failure[0] && !load->closing)
		snprintf(load->failure, sizeof(load->failure), "%.200s", what);
	uv_stop(&load->loop);
}

static void base64(char *out, const uint8_t *data, size_t len)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		uint32_t three = (uint32_t)data[i] << 16 | (i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0) | (i + 2 < len ? data[i + 2] : 0);

		*out++ = letters[three >> 18];
		*out++ = letters[three >> 12 & 63];
		*out++ = i + 1 < len ? letters[three >> 6 & 63] : '=';
		*out++ = i + 2 < len ? letters[three & 63] : '=';
	}
	*out = '\0';
}

static void on_written(uv_write_t *write, int status)
{
	struct client *client = write->data;

	if (status < 0)
		load_fail(client->load, uv_strerror(status));
}

/* Key and value together are as long as a command of ours. */
static void client_send(struct client *client)
{
	struct load *load = client->load;
	uint8_t key[KEY_CHARS + 1], value[LOAD_BYTES_MAX];
	char key64[2 * KEY_CHARS], value64[2 * LOAD_BYTES_MAX], body[REQUEST_BYTES - 256];
	int len;
	uv_buf_t buf;

	snprintf((char *)key, sizeof(key), "load-%04u-%06llu", client->number % 10000, (unsigned long long)(++client->seq % 1000000));
	for (size_t i = 0; i < load->bytes - KEY_CHARS; i++)
		value[i] = (uint8_t)('a' + (client->seq + i) % 26);
	base64(key64, key, KEY_CHARS);
	base64(value64, value, load->bytes - KEY_CHARS);
	len = snprintf(body, sizeof(body), "{\"key\":\"%s\",\"value\":\"%s\"}", key64, value64);
	len = snprintf(client->request, sizeof(client->request),
		       "POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len, body);
	buf = uv_buf_init(client->request, (unsigned)len);
	client->answer_len = 0;
	client->sent_ns = uv_hrtime();
	client->write.data = client;
	int rc = uv_write(&client->write, (uv_stream_t *)&client->tcp, &buf, 1, on_written);
	if (rc < 0)
		load_fail(load, uv_strerror(rc));
}

/* True when the whole answer is there. */
static bool answer_is_whole(const struct client *client)
{
	const char *end = strstr(client->answer, "\r\n\r\n"), *length = strcasestr(client->answer, "\r\ncontent-length:");

	if (!end)
		return false;
	if (length && length < end)
		return client->answer_len >= (size_t)(end + 4 - client->answer) + strtoul(length + 17, NULL, 10);
	return strstr(end, "\r\n0\r\n\r\n");
}

static void client_answered(struct client *client)
{
	struct load *load = client->load;

	if (strncmp(client->answer, "HTTP/1.1 200 ", 13)) {
		load_fail(load, client->answer);
		return;
	}
	if (load->measuring) {
		if (load->n_latency == load->cap_latency) {
			load->cap_latency = load->cap_latency ? 2 * load->cap_latency : 65536;
			load->latency_us = mem_realloc(load->latency_us, load->cap_latency * sizeof(*load->latency_us));
		}
		load->latency_us[load->n_latency++] = (uint32_t)((uv_hrtime() - client->sent_ns) / 1000);
	}
	client_send(client);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *client = handle->data;

	*buf = uv_buf_init(client->answer + client->answer_len, (unsigned)(ANSWER_BYTES - 1 - client->answer_len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *client = stream->data;

	if (n < 0) {
		load_fail(client->load, uv_strerror((int)n));
		return;
	}
	client->answer_len += (size_t)n;
	client->answer[client->answer_len] = '\0';
	if (answer_is_whole(client))
		client_answered(client);
}

static void on_connected(uv_connect_t *connecting, int status)
{
	struct client *client = connecting->data;

	if (status < 0) {
		load_fail(client->load, uv_strerror(status));
		return;
	}
	uv_tcp_nodelay(&client->tcp, 1);
	uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read);
	client_send(client);
}

static void on_end(uv_timer_t *timer)
{
	struct load *load = timer->data;

	load->end_ns = uv_hrtime();
	uv_stop(&load->loop);
}

static void on_warm(uv_timer_t *timer)
{
	struct load *load = timer->data;

	load->begin_ns = uv_hrtime();
	load->measuring = true;
	uv_timer_start(timer, on_end, (uint64_t)(load->seconds * 1000), 0);
}

static void load_run(struct load *load)
{
	struct client *clients = mem_alloc(load->n_clients * sizeof(*clients));

	uv_loop_init(&load->loop);
	uv_timer_init(&load->loop, &load->clock);
	load->clock.data = load;
	uv_timer_start(&load->clock, on_warm, (uint64_t)(load->warm_s * 1000), 0);
	for (unsigned i = 0; i < load->n_clients; i++) {
		struct client *client = &clients[i];
		struct sockaddr_in to;

		client->load = load;
		client->number = i;
		uv_tcp_init(&load->loop, &client->tcp);
		client->tcp.data = client->connecting.data = client;
		if (uv_ip4_addr(load->addresses[i % load->n_addresses], load->port, &to) < 0 ||
		    uv_tcp_connect(&client->connecting, &client->tcp, (struct sockaddr *)&to, on_connected) < 0)
			load_fail(load, "a member cannot be connected to");
	}
	if (!load->failure[0])
		uv_run(&load->loop, UV_RUN_DEFAULT);
	for (unsigned i = 0; i < load->n_clients; i++)
		if (!uv_is_closing((uv_handle_t *)&clients[i].tcp))
			uv_close((uv_handle_t *)&clients[i].tcp, NULL);
	uv_close((uv_handle_t *)&load->clock, NULL);
	load->closing = true;
	uv_run(&load->loop, UV_RUN_DEFAULT);
	uv_loop_close(&load->loop);
	free(clients);
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

static int read_options(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {{"address", required_argument, NULL, 'a'}, {"port", required_argument, NULL, 'p'},
						{"clients", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 't'},
						{"warm", required_argument, NULL, 'w'}, {"bytes", required_argument, NULL, 'b'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'a' && load->n_addresses < LOAD_ADDRESSES_MAX)
			load->addresses[load->n_addresses++] = optarg;
		else if (c == 'p')
			load->port = (int)strtol(optarg, NULL, 10);
		else if (c == 'c')
			load->n_clients = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 't')
			load->seconds = strtod(optarg, NULL);
		else if (c == 'w')
			load->warm_s = strtod(optarg, NULL);
		else if (c == 'b')
			load->bytes = (unsigned)strtoul(optarg, NULL, 10);
		else
			return -1;
	}
	return optind == argc && load->n_addresses && load->n_clients >= 1 && load->n_clients <= LOAD_CLIENTS_MAX &&
		load->bytes > KEY_CHARS && load->bytes <= LOAD_BYTES_MAX ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct load load = {.n_clients = 64, .seconds = 10, .bytes = 200, .port = 2379};
	double seconds;

	if (read_options(&load, argc, argv) < 0) {
		fputs("Usage: etcd_load --address IP [--address IP]... [--port N] [--clients N] [--seconds S] [--warm S] [--bytes N]\n", stderr);
		return 64;
	}
	load_run(&load);
	if (load.failure[0]) {
		fprintf(stderr, "etcd_load: %s\n", load.failure);
		return 1;
	}
	seconds = (double)(load.end_ns - load.begin_ns) / 1e9;
	qsort(load.latency_us, load.n_latency, sizeof(*load.latency_us), by_size);
	printf("{\"clients\": %u, \"seconds\": %.3f, \"commits\": %zu, \"per_s\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", load.n_clients,
	       seconds, load.n_latency, (double)load.n_latency / seconds, percentile_ms(&load, 0.5), percentile_ms(&load, 0.99));
	free(load.latency_us);
	return 0;
}
