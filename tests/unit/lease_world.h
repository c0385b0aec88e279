/* A pool in memory for the model check of the lease: each file operation of a host is a step of its own, hosts are
 * fibers, and a chooser says who goes next and whether an operation is answered. An operation without answer
 * (-ETIMEDOUT) may have been done, not done, or be done later. One file: included by the test only. */
#pragma once

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "storage/lease.h"
#include "storage/lease_record.h"
#include "storage/pool_fs_ops.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBER_LEAVE(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define FIBER_ENTER(save) __sanitizer_finish_switch_fiber(save, NULL, NULL)
#else
#define FIBER_LEAVE(save, bottom, size) ((void)(save))
#define FIBER_ENTER(save) ((void)(save))
#endif

#define WORLD_HOSTS 3
#define WORLD_FILES 512
#define WORLD_LATE 64
#define FIBER_STACK (128 * 1024)

enum effect { EFFECT_CREATE, EFFECT_WRITE, EFFECT_REMOVE };

struct file { char name[200]; char data[LEASE_RECORD_BYTES]; size_t len; };
struct late { enum effect kind; struct file file; };
struct world;

struct host {
	struct pool_fs fs; /* first: this host's view of the pool */
	struct world *world;
	const char *name;
	int index;
	bool dead, done, holds;
	uint64_t generation; /* of what it holds or last tried */
	void (*script)(struct host *h);
	ucontext_t context;
	void *stack, *fake_stack;
};

struct world {
	struct file files[WORLD_FILES];
	size_t n_files;
	struct late late[WORLD_LATE];
	size_t n_late;
	struct host hosts[WORLD_HOSTS];
	size_t n_hosts;
	ucontext_t main;
	void *main_fake_stack;
	const void *main_bottom;
	size_t main_size;
	/* Chooses one of n; the whole of a run follows from its answers. */
	unsigned (*choose)(void *data, unsigned n);
	void *choose_data;
	bool faults, trace;
	/* What the replicated log says. */
	int owner;
	uint64_t generation;
	struct lease_break brk; /* of the newest generation; host NULL: none */
	bool log_is_wrong;      /* a generation was given out while the old one ran: no proof can be trusted any more */
	unsigned breaking;      /* acquisitions with a proof under way */
	unsigned holders, most_holders, acquisitions, refusals;
};

/* GANTRY_TRACE=1 prints every step of a run. */
#define TRACE(h, ...) \
	do { \
		if ((h)->world->trace) { \
			printf("%s%s ", (h)->name, (h)->holds ? "*" : " "); \
			printf(__VA_ARGS__); \
		} \
	} while (0)

static unsigned choose(struct world *w, unsigned n)
{
	return n < 2 ? 0 : w->choose(w->choose_data, n);
}

static void host_yield(struct host *h)
{
	FIBER_LEAVE(&h->fake_stack, h->world->main_bottom, h->world->main_size);
	swapcontext(&h->context, &h->world->main);
	FIBER_ENTER(h->fake_stack);
}

static struct file *world_find(struct world *w, const char *name)
{
	for (size_t i = 0; i < w->n_files; i++)
		if (strcmp(w->files[i].name, name) == 0)
			return &w->files[i];
	return NULL;
}

static int world_apply(struct world *w, enum effect kind, const struct file *f)
{
	struct file *old = world_find(w, f->name);

	switch (kind) {
	case EFFECT_CREATE:
		if (old)
			return -EEXIST;
		assert(w->n_files < WORLD_FILES);
		w->files[w->n_files++] = *f;
		return 0;
	case EFFECT_WRITE:
		if (!old)
			return -ENOENT;
		memcpy(old->data, f->data, f->len);
		old->len = f->len;
		return 0;
	default:
		if (!old)
			return -ENOENT;
		*old = w->files[--w->n_files];
		return 0;
	}
}

/* One step of a host that changes the pool. */
static int host_effect(struct host *h, enum effect kind, const char *name, const void *data, size_t len)
{
	struct world *w = h->world;
	struct file f = {.len = len};

	host_yield(h);
	if (h->dead)
		return -ETIMEDOUT;
	snprintf(f.name, sizeof(f.name), "%s", name);
	if (data)
		memcpy(f.data, data, len);
	TRACE(h, "%s %s %.60s\n", kind == EFFECT_CREATE ? "create" : kind == EFFECT_WRITE ? "write" : "remove", name,
	      len ? (const char *)data + 24 : "");
	if (w->faults && choose(w, 12) == 0) {
		unsigned fate = choose(w, 3);

		TRACE(h, "  no answer: %s\n", fate == 0 ? "done" : fate == 1 ? "done later" : "not done");

		if (fate == 0)
			world_apply(w, kind, &f);
		else if (fate == 1 && w->n_late < WORLD_LATE)
			w->late[w->n_late++] = (struct late){.kind = kind, .file = f};
		return -ETIMEDOUT;
	}
	return world_apply(w, kind, &f);
}

/* A step that only looks. False: no answer. */
static bool host_look(struct host *h)
{
	host_yield(h);
	return !h->dead && !(h->world->faults && choose(h->world, 24) == 0);
}

static int fake_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	/* As over NFS: the name first, then the content. */
	int rc = host_effect((struct host *)fs, EFFECT_CREATE, name, NULL, 0);

	return rc < 0 ? rc : host_effect((struct host *)fs, EFFECT_WRITE, name, data, len);
}

static int fake_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	return host_effect((struct host *)fs, EFFECT_WRITE, name, data, len);
}

static int fake_remove(struct pool_fs *fs, const char *name, struct err *err)
{
	return host_effect((struct host *)fs, EFFECT_REMOVE, name, NULL, 0);
}

static int fake_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	struct host *h = (struct host *)fs;
	const struct file *f;

	if (!host_look(h))
		return -ETIMEDOUT;
	f = world_find(h->world, name);
	TRACE(h, "read %s: %.60s\n", name, f ? f->len ? f->data + 24 : "empty" : "not there");
	if (!f)
		return -ENOENT;
	buf_append(ret, f->data, f->len < max ? f->len : max);
	return 0;
}

static int fake_list(struct pool_fs *fs, const char *folder, int (*add)(void *data, const char *name), void *data, struct err *err)
{
	struct host *h = (struct host *)fs;
	size_t len = strlen(folder);

	if (!host_look(h))
		return -ETIMEDOUT;
	for (size_t i = 0; i < h->world->n_files; i++)
		if (strncmp(h->world->files[i].name, folder, len) == 0 && h->world->files[i].name[len] == '/')
			add(data, h->world->files[i].name + len + 1);
	return 0;
}

static int fake_folder(struct pool_fs *fs, const char *name, struct err *err)
{
	return 0; /* folders are always there */
}

static void fake_close(struct pool_fs *fs)
{
}

static const struct pool_fs_ops fake_ops = {
	.close = fake_close,
	.read = fake_read,
	.create = fake_create,
	.overwrite = fake_overwrite,
	.remove = fake_remove,
	.list = fake_list,
	.mkdir = fake_folder,
	.rmdir = fake_folder,
};

static void fiber_main(unsigned low, unsigned high)
{
	struct host *h = (struct host *)((uintptr_t)low | (uintptr_t)high << 32);

	FIBER_ENTER(NULL);
	h->script(h);
	h->done = true;
	for (;;)
		host_yield(h);
}

static void world_add(struct world *w, const char *name, void (*script)(struct host *h))
{
	struct host *h = &w->hosts[w->n_hosts];

	*h = (struct host){.fs.ops = &fake_ops, .fs.pool_name = (char *)"model", .world = w, .name = name, .index = (int)w->n_hosts++,
			   .script = script};
	h->stack = malloc(FIBER_STACK);
	getcontext(&h->context);
	h->context.uc_stack.ss_sp = h->stack;
	h->context.uc_stack.ss_size = FIBER_STACK;
	makecontext(&h->context, (void (*)(void))fiber_main, 2, (unsigned)(uintptr_t)h, (unsigned)((uintptr_t)h >> 32));
}

static void world_resume(struct world *w, struct host *h)
{
	FIBER_LEAVE(&w->main_fake_stack, h->stack, FIBER_STACK);
	swapcontext(&w->main, &h->context);
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(w->main_fake_stack, &w->main_bottom, &w->main_size);
#endif
}

static void world_free(struct world *w)
{
	for (size_t i = 0; i < w->n_hosts; i++)
		free(w->hosts[i].stack);
	free(w);
}

static void world_do_late(struct world *w, unsigned i)
{
	struct late l = w->late[i];

	w->late[i] = w->late[--w->n_late];
	if (w->trace)
		printf("late: %d %s %.60s\n", (int)l.kind, l.file.name, l.file.len ? l.file.data + 24 : "");
	world_apply(w, l.kind, &l.file);
}

/* Runs every script to its end. */
static void world_run(struct world *w)
{
	for (;;) {
		struct host *ready[WORLD_HOSTS];
		unsigned n = 0;

		for (size_t i = 0; i < w->n_hosts; i++)
			if (!w->hosts[i].done)
				ready[n++] = &w->hosts[i];
		if (n == 0)
			return;
		if (w->n_late > 0 && choose(w, 8) == 0)
			world_do_late(w, choose(w, (unsigned)w->n_late));
		world_resume(w, ready[choose(w, n)]);
	}
}

/* ---- holding ---- */

static void host_enter(struct host *h)
{
	struct world *w = h->world;

	assert(!h->holds);
	h->holds = true;
	w->acquisitions++;
	if (++w->holders > w->most_holders)
		w->most_holders = w->holders;
}

static void host_leave(struct host *h)
{
	if (h->holds)
		h->world->holders--;
	h->holds = false;
}

static struct lease_id host_id(const struct host *h, uint64_t generation)
{
	return (struct lease_id){.volume = "v", .host = h->name, .domain_uuid = "u-1", .domain_name = "web1", .generation = generation};
}

static int host_acquire(struct host *h, uint64_t generation, const struct lease_break *brk)
{
	struct lease_id id = host_id(h, generation);
	bool with_proof;
	int rc;

	TRACE(h, "acquires generation %d, may break %s %d\n", (int)generation, brk && brk->host ? brk->host : "none",
	      brk ? (int)brk->generation : 0);
	brk = brk && brk->host ? brk : NULL;
	with_proof = brk != NULL;
	h->world->breaking += with_proof;
	rc = lease_acquire(&h->fs, &id, brk, NULL);
	h->world->breaking -= with_proof;
	TRACE(h, "acquired generation %d: %d\n", (int)generation, rc);
	h->generation = generation;
	if (rc == 0 && !h->dead)
		host_enter(h);
	else if (rc == -EBUSY || rc == -ESTALE)
		h->world->refusals++;
	return rc;
}
