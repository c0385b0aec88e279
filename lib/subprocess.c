#include "lib/subprocess.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/limits.h"

enum {
	SUBPROCESS_TERM_MS = 1000,  /* from SIGTERM to SIGKILL */
	SUBPROCESS_STUCK_MS = 2000, /* from SIGKILL until a process in an uninterruptible sleep is left alone */
	SUBPROCESS_PIPE_MS = 500,   /* the program has ended, but a child of it still holds its output */
};

enum subprocess_stage { SP_RUNNING, SP_TERMINATED, SP_KILLED, SP_EXITED, SP_REPORTED };

struct subprocess_pipe {
	uv_pipe_t pipe;
	struct buf text;
	bool open;
};

/* Freed when it was reported and all its handles are closed; the process handle stays until the process ended,
 * so that it never remains a zombie. */
struct subprocess {
	uv_process_t process;
	uv_timer_t timer;
	uv_write_t write_req;
	struct subprocess_pipe in, out, err_out;
	enum subprocess_stage stage;
	int rc;
	int exit_status;
	bool exited;
	bool spawned;
	unsigned handles_open;
	char *stdin_text;
	subprocess_cb cb;
	void *data;
	char discard[4096]; /* output above the limit is read all the same: the program shall not hang on it */
};

static void subprocess__on_timer(uv_timer_t *timer);

static void subprocess__on_closed(uv_handle_t *handle)
{
	struct subprocess *sp = handle->data;

	if (--sp->handles_open)
		return;
	buf_free(&sp->out.text);
	buf_free(&sp->err_out.text);
	/* It may have held a password. */
	if (sp->stdin_text)
		explicit_bzero(sp->stdin_text, strlen(sp->stdin_text));
	free(sp->stdin_text);
	free(sp);
}

static void subprocess__close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, subprocess__on_closed);
}

static void subprocess__close_pipe(struct subprocess_pipe *p)
{
	p->open = false;
	subprocess__close_handle((uv_handle_t *)&p->pipe);
}

static void subprocess__kill(struct subprocess *sp, int sig)
{
	/* The group: fence agents are scripts with children of their own. Once the leader has been reaped its
	 * number could be another's; it is signalled then only while somebody still holds its output. */
	if (sp->spawned && (!sp->exited || sp->out.open || sp->err_out.open))
		kill(-sp->process.pid, sig);
}

/* The one call of the callback. */
static void subprocess__report(struct subprocess *sp)
{
	struct subprocess_result result = {
		.rc = sp->rc,
		.exit_status = sp->exit_status,
		.out = buf_str(&sp->out.text),
		.err_out = buf_str(&sp->err_out.text),
	};

	if (sp->stage == SP_REPORTED)
		return;
	sp->stage = SP_REPORTED;
	subprocess__close_pipe(&sp->in);
	subprocess__close_pipe(&sp->out);
	subprocess__close_pipe(&sp->err_out);
	subprocess__close_handle((uv_handle_t *)&sp->timer);
	if (sp->exited)
		subprocess__close_handle((uv_handle_t *)&sp->process);
	else
		uv_unref((uv_handle_t *)&sp->process);
	sp->cb(sp->data, &result);
}

static void subprocess__report_if_done(struct subprocess *sp)
{
	if (sp->exited && !sp->out.open && !sp->err_out.open)
		subprocess__report(sp);
}

static void subprocess__on_exit(uv_process_t *process, int64_t exit_status, int term_signal)
{
	struct subprocess *sp = process->data;

	sp->exited = true;
	if (sp->stage == SP_REPORTED) {
		subprocess__close_handle((uv_handle_t *)&sp->process);
		return;
	}
	sp->exit_status = term_signal ? 128 + term_signal : (int)exit_status;
	sp->stage = SP_EXITED;
	uv_timer_start(&sp->timer, subprocess__on_timer, SUBPROCESS_PIPE_MS, 0);
	subprocess__report_if_done(sp);
}

static void subprocess__on_timer(uv_timer_t *timer)
{
	struct subprocess *sp = timer->data;

	switch (sp->stage) {
	case SP_RUNNING:
		sp->rc = -ETIMEDOUT;
		subprocess__kill(sp, SIGTERM);
		sp->stage = SP_TERMINATED;
		uv_timer_start(timer, subprocess__on_timer, SUBPROCESS_TERM_MS, 0);
		break;
	case SP_TERMINATED:
		subprocess__kill(sp, SIGKILL);
		sp->stage = SP_KILLED;
		uv_timer_start(timer, subprocess__on_timer, SUBPROCESS_STUCK_MS, 0);
		break;
	case SP_EXITED:
		/* What was killed at its deadline leaves no children behind; what ended by itself may have
		 * meant to (a daemon it started). */
		if (sp->rc < 0)
			subprocess__kill(sp, SIGKILL);
		subprocess__report(sp);
		break;
	case SP_KILLED:
		subprocess__report(sp);
		break;
	case SP_REPORTED:
		break;
	}
}

static struct subprocess_pipe *subprocess__pipe_of(struct subprocess *sp, const void *handle)
{
	return handle == &sp->out.pipe ? &sp->out : &sp->err_out;
}

static void subprocess__alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct subprocess *sp = handle->data;

	*buf = uv_buf_init(sp->discard, sizeof(sp->discard));
}

static void subprocess__on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	struct subprocess *sp = stream->data;
	struct subprocess_pipe *p = subprocess__pipe_of(sp, stream);
	size_t room = LIMIT_SUBPROCESS_OUTPUT_BYTES - p->text.len;

	if (nread < 0) {
		subprocess__close_pipe(p);
		subprocess__report_if_done(sp);
	} else {
		buf_append(&p->text, buf->base, (size_t)nread < room ? (size_t)nread : room);
	}
}

static void subprocess__on_stdin_written(uv_write_t *req, int status)
{
	struct subprocess *sp = req->handle->data;

	/* EPIPE only says that the program did not want all of it. */
	subprocess__close_pipe(&sp->in);
}

static void subprocess__pipe_init(uv_loop_t *loop, struct subprocess *sp, struct subprocess_pipe *p)
{
	uv_pipe_init(loop, &p->pipe, 0);
	p->pipe.data = sp;
	sp->handles_open++;
}

static int subprocess__spawn(uv_loop_t *loop, struct subprocess *sp, const struct subprocess_options *options)
{
	uv_stdio_container_t stdio[3] = {
		{.flags = options->stdin_text ? UV_CREATE_PIPE | UV_READABLE_PIPE : UV_IGNORE,
		 .data.stream = (uv_stream_t *)&sp->in.pipe},
		{.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&sp->out.pipe},
		{.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&sp->err_out.pipe},
	};
	uv_process_options_t spawn = {
		.exit_cb = subprocess__on_exit,
		.file = options->argv[0],
		.args = (char **)(uintptr_t)options->argv,
		.env = (char **)(uintptr_t)options->env,
		.flags = UV_PROCESS_DETACHED, /* a session, and so a process group, of its own */
		.stdio_count = 3,
		.stdio = stdio,
	};

	return uv_spawn(loop, &sp->process, &spawn);
}

static void subprocess__start_io(struct subprocess *sp, const struct subprocess_options *options)
{
	uv_buf_t text;

	sp->out.open = uv_read_start((uv_stream_t *)&sp->out.pipe, subprocess__alloc, subprocess__on_read) == 0;
	sp->err_out.open = uv_read_start((uv_stream_t *)&sp->err_out.pipe, subprocess__alloc, subprocess__on_read) == 0;
	if (options->timeout_ms) {
		/* Spawning takes time, and the loop's clock stands still during a turn: from now on. */
		uv_update_time(sp->timer.loop);
		uv_timer_start(&sp->timer, subprocess__on_timer, options->timeout_ms, 0);
	}
	if (!options->stdin_text)
		return;
	sp->stdin_text = str_dup(options->stdin_text);
	text = uv_buf_init(sp->stdin_text, (unsigned)strlen(sp->stdin_text));
	if (uv_write(&sp->write_req, (uv_stream_t *)&sp->in.pipe, &text, 1, subprocess__on_stdin_written) < 0)
		subprocess__close_pipe(&sp->in);
}

int subprocess_run(uv_loop_t *loop, const struct subprocess_options *options, subprocess_cb cb, void *data,
		   struct subprocess **ret, struct err *err)
{
	struct subprocess *sp = mem_alloc(sizeof(*sp));
	int rc;

	sp->cb = cb;
	sp->data = data;
	sp->handles_open = 1;
	uv_timer_init(loop, &sp->timer);
	subprocess__pipe_init(loop, sp, &sp->in);
	subprocess__pipe_init(loop, sp, &sp->out);
	subprocess__pipe_init(loop, sp, &sp->err_out);
	sp->timer.data = sp->process.data = sp;
	rc = subprocess__spawn(loop, sp, options);
	/* libuv has set the process handle up even when it could not start it. */
	sp->handles_open++;
	if (rc < 0) {
		sp->stage = SP_REPORTED;
		subprocess__close_pipe(&sp->in);
		subprocess__close_pipe(&sp->out);
		subprocess__close_pipe(&sp->err_out);
		subprocess__close_handle((uv_handle_t *)&sp->timer);
		subprocess__close_handle((uv_handle_t *)&sp->process);
		return err_set(err, -rc, "cannot run %s: %s%s", options->argv[0], uv_strerror(rc),
			       rc == UV_ENOENT ? ": is its package installed?" : "");
	}
	sp->spawned = true;
	subprocess__start_io(sp, options);
	if (ret)
		*ret = sp;
	return 0;
}

void subprocess_cancel(struct subprocess *sp)
{
	if (sp->stage == SP_REPORTED)
		return;
	sp->rc = -ECANCELED;
	subprocess__kill(sp, SIGKILL);
	if (sp->stage == SP_EXITED)
		return; /* its timer reports soon */
	sp->stage = SP_KILLED;
	uv_timer_start(&sp->timer, subprocess__on_timer, SUBPROCESS_STUCK_MS, 0);
}
