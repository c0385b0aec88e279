/* Fence runs over agents that are scripts in a folder of the test's own, first in PATH; each notes that it was called, and its
 * input. Included by one test program. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#include <cmocka.h>

#include "fencing/fence_agent.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/deadlines.h"
#include "proto/pb.h"

#define DEVICES_MAX 4
#define OFF "case $A in off) exit 0;; status) exit 2;; esac\n"

struct bench {
	char dir[64];
	char *old_path;
	uv_loop_t loop;
	Gantry__FenceDevice *devices[DEVICES_MAX];
	size_t n;
	const char *watchdog;
	int calls, rc;
	bool by_time;
	char proof[512], err[ERR_TEXT_MAX];
	uint64_t begun, took_ms;
	struct fence_run *run;
	uv_timer_t cancel;
};

static int bench_new(void **state)
{
	struct bench *b = mem_alloc(sizeof(*b));
	_cleanup_free_ char *path = NULL;

	strcpy(b->dir, "fence-test-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	b->old_path = str_dup(getenv("PATH"));
	_cleanup_free_ char *absolute = realpath(b->dir, NULL);
	path = str_printf("%s:%s", absolute, b->old_path);
	setenv("PATH", path, 1);
	uv_loop_init(&b->loop);
	*state = b;
	return 0;
}

static void bench_forget_devices(struct bench *b)
{
	while (b->n)
		gantry__fence_device__free_unpacked(b->devices[--b->n], NULL);
}

static int bench_free(void **state)
{
	struct bench *b = *state;
	uv_fs_t scan;
	uv_dirent_t entry;

	bench_forget_devices(b);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	setenv("PATH", b->old_path, 1);
	free(b->old_path);
	assert_true(uv_fs_scandir(NULL, &scan, b->dir, 0, NULL) >= 0);
	while (uv_fs_scandir_next(&scan, &entry) == 0) {
		_cleanup_free_ char *path = str_printf("%s/%s", b->dir, entry.name);
		unlink(path);
	}
	uv_fs_req_cleanup(&scan);
	assert_int_equal(rmdir(b->dir), 0);
	free(b);
	return 0;
}

/* D: the folder, N: the agent's name, A: the action. As with Debian's agents blanks around a line do not count and the
 * last of two actions does. */
static void agent(struct bench *b, const char *name, const char *body)
{
	_cleanup_free_ char *path = str_printf("%s/%s", b->dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "#!/bin/sh\nD=${0%%/*}; N=${0##*/}\n"
		   "while IFS= read -r line; do\n"
		   "  printf '%%s\\n' \"$line\" >>$D/$N.stdin\n"
		   "  IFS=' =' read -r k v <<END\n$line\nEND\n"
		   "  [ \"$k\" != action ] || A=$v\n"
		   "done\n"
		   "echo $N $A >>$D/calls\n%s", body);
	fclose(f);
	assert_int_equal(chmod(path, 0755), 0);
}

/* key=value..., NULL. A leading '!' marks a secret. */
static void device(struct bench *b, const char *name, uint32_t level, uint32_t timeout_s, ...)
{
	Gantry__FenceDevice *d = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
	va_list args;

	assert_true(b->n < DEVICES_MAX);
	pb_set_string(&d->agent, name);
	d->level = level;
	d->timeout_s = timeout_s;
	va_start(args, timeout_s);
	for (const char *text; (text = va_arg(args, const char *));) {
		Gantry__FenceParam *p = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);
		_cleanup_free_ char *key = str_dup(text + (*text == '!'));

		p->secret = *text == '!';
		*strchr(key, '=') = '\0';
		pb_set_string(&p->key, key);
		pb_set_string(&p->value, strchr(text, '=') + 1);
		PB_APPEND(d, params, p);
	}
	va_end(args);
	b->devices[b->n++] = d;
}

static struct fence_target target_of(const struct bench *b)
{
	return (struct fence_target){.host = "hostB", .watchdog = b->watchdog, .devices = b->devices, .n_devices = b->n};
}

static void on_end(void *data, int rc, bool by_time, const char *proof, const struct err *err)
{
	struct bench *b = data;

	b->calls++;
	b->rc = rc;
	b->by_time = by_time;
	b->took_ms = (uv_hrtime() - b->begun) / 1000000;
	snprintf(b->proof, sizeof(b->proof), "%s", proof ? proof : "");
	snprintf(b->err, sizeof(b->err), "%s", err ? err->text : "");
}

static void begin(struct bench *b)
{
	struct fence_target target = target_of(b);
	struct err err = {0};

	b->calls = 0;
	b->begun = uv_hrtime();
	uv_update_time(&b->loop);
	assert_int_equal(fence_off(&b->loop, &target, on_end, b, &b->run, &err), 0);
	assert_int_equal(b->calls, 0);
}

static void end(struct bench *b)
{
	uv_run(&b->loop, UV_RUN_DEFAULT);
	assert_int_equal(b->calls, 1);
	if (b->rc)
		assert_string_equal(b->proof, "");
	else
		assert_string_equal(b->err, "");
}

static int fence(struct bench *b)
{
	begin(b);
	end(b);
	return b->rc;
}

static char *file_text(struct bench *b, const char *name)
{
	_cleanup_free_ char *path = str_printf("%s/%s", b->dir, name);
	char *text = mem_alloc(4096);
	FILE *f = fopen(path, "r");

	if (f) {
		text[fread(text, 1, 4095, f)] = '\0';
		fclose(f);
	}
	return text;
}

static void assert_file(struct bench *b, const char *name, const char *expected)
{
	_cleanup_free_ char *text = file_text(b, name);

	assert_string_equal(text, expected);
}

static void assert_has(const char *text, const char *words)
{
	if (!strstr(text, words))
		fail_msg("'%s' is not in: %s", words, text);
}

static void assert_has_not(const char *text, const char *words)
{
	if (strstr(text, words))
		fail_msg("'%s' is in: %s", words, text);
}
