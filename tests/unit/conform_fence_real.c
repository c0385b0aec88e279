/* The leader's fence runs as they are shipped, with an agent of the usual interface: a script whose power is a file. */
#include "tests/unit/conform_fence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "clusterd/daemon/fence_runner.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"
#include "tests/unit/temp_folder.h"

struct real_fence {
	char folder[64];
	char *old_path;
	uv_loop_t loop;
	uv_timer_t timer;
	struct fence_runner *runner;
	bool answered, late;
	fence_side_answer answer;
	void *data;
};

static const char agent[] =
	"#!/bin/sh\n"
	"D=${0%/*}\n"
	"while IFS='=' read -r k v; do [ \"$k\" != action ] || A=$v; done\n"
	"M=$(cat $D/mood)\n"
	"[ $M != fails ] || { echo 'no answer' >&2; exit 1; }\n"
	"[ $M$A != slowoff ] || sleep 0.5\n"
	"case $M$A in lies*) ;; *off) : >$D/is_off;; esac\n"
	"[ $A = status ] || exit 0\n"
	"[ $M != lies ] || exit 2\n"
	"[ ! -e $D/is_off ] || exit 2\n"
	"exit 0\n";

static void put_file(struct real_fence *f, const char *name, const char *text)
{
	_cleanup_free_ char *path = str_printf("%s/%s", f->folder, name);
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file) != 0 || chmod(path, 0755) < 0)
		abort();
}

static void on_fenced(void *data, const char *host, int rc, bool by_time, const char *text)
{
	struct real_fence *f = data;

	f->answered = true;
	f->answer(f->data, host, rc, text);
}

static void *real_make(fence_side_answer answer, void *data)
{
	struct real_fence *f = mem_alloc(sizeof(*f));
	_cleanup_free_ char *path = NULL;

	f->answer = answer;
	f->data = data;
	temp_folder_make(f->folder, sizeof(f->folder));
	put_file(f, "fence_conform", agent);
	put_file(f, "mood", "works");
	f->old_path = str_dup(getenv("PATH"));
	path = str_printf("%s:%s", f->folder, f->old_path);
	setenv("PATH", path, 1);
	uv_loop_init(&f->loop);
	uv_timer_init(&f->loop, &f->timer);
	f->timer.data = f;
	f->runner = fence_runner_new(&f->loop, on_fenced, f);
	return f;
}

static void real_free(void *side)
{
	struct real_fence *f = side;

	fence_runner_free(f->runner);
	uv_close((uv_handle_t *)&f->timer, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&f->loop) != 0)
		abort();
	setenv("PATH", f->old_path, 1);
	free(f->old_path);
	temp_folder_remove(f->folder);
	free(f);
}

static void real_set_mood(void *side, enum fence_side_mood mood)
{
	static const char *const words[] = {"works", "slow", "fails", "lies"};

	put_file(side, "mood", words[mood]);
}

static void real_set_power(void *side, bool on)
{
	struct real_fence *f = side;
	_cleanup_free_ char *path = str_printf("%s/is_off", f->folder);

	if (on)
		unlink(path);
	else
		put_file(f, "is_off", "");
}

static bool real_has_power(void *side)
{
	struct real_fence *f = side;
	_cleanup_free_ char *path = str_printf("%s/is_off", f->folder);

	return access(path, F_OK) < 0;
}

static void real_start(void *side, const char *target)
{
	struct real_fence *f = side;
	Gantry__FenceDevice device = GANTRY__FENCE_DEVICE__INIT, *devices[] = {&device};
	Gantry__Host host = GANTRY__HOST__INIT;

	device.agent = (char *)"fence_conform";
	device.level = 1;
	device.timeout_s = 20;
	host.name = (char *)target;
	host.fence = devices;
	host.n_fence = strcmp(target, CONFORM_NOBODY) != 0;
	fence_runner_start(f->runner, &host);
}

static void real_cancel(void *side)
{
	fence_runner_cancel_all(((struct real_fence *)side)->runner);
}

static void on_late(uv_timer_t *timer)
{
	((struct real_fence *)timer->data)->late = true;
}

static void real_pass(void *side, unsigned ms)
{
	struct real_fence *f = side;

	f->answered = f->late = false;
	uv_update_time(&f->loop);
	uv_timer_start(&f->timer, on_late, ms, 0);
	while (!f->answered && !f->late)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->timer);
}

const struct fence_side fence_side_real = {
	.name = "fence_agent.c", .make = real_make, .free = real_free, .set_mood = real_set_mood, .set_power = real_set_power,
	.has_power = real_has_power, .start = real_start, .cancel = real_cancel, .pass = real_pass, .quick_ms = 10000, .patience_ms = 20000,
};
