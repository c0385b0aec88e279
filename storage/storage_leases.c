/* The leases of one domain's writable volumes, together: all or none, renewed while they are held. What is asked of a set is
 * done one after the other ("sweeps" over its volumes), in the order asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "storage/lease.h"
#include "storage/storage_internal.h"

#define LOST_AFTER_MS (6 * LEASE_RENEW_MS) /* renewal has failed for so long: said once, for information */

struct lease_item {
	struct pool_handle *pool;
	char *volume;
};

struct sweep {
	struct sweep *next;
	struct storage_lease_set *set;
	storage_work work;
	size_t at, end, succeeded;
	char *next_host;
	uint64_t next_generation;
	int rc;                 /* of the first that failed; -ESTALE before all others */
	struct err err;
	int cause_rc;           /* of the taking that this one undoes */
	struct err cause;
	void (*done)(struct sweep *s);
	storage_cb cb;
	void *data;
};

struct storage_lease_set {
	struct storage *storage;
	struct lease_item *items;
	size_t n;
	char *host, *uuid, *name;
	uint64_t generation;
	char *break_host, *break_proof;
	uint64_t break_generation;
	uv_timer_t renewal;
	uv_timer_t turn;        /* the next sweep begins, or ends, on the next turn of the loop */
	unsigned open_timers;
	struct sweep *sweeps;   /* the first is under way */
	bool in_step;           /* the first one waits for its pool or for `turn` */
	bool held, given_up, lost_said;
	uint64_t renewed_ms;
	storage_cb on_lost;
	void *on_lost_data;
};

/* ---- life ---- */

static void on_timer_closed(uv_handle_t *handle)
{
	struct storage_lease_set *ls = handle->data;

	if (--ls->open_timers > 0)
		return;
	for (size_t i = 0; i < ls->n; i++) {
		storage__pool_unref(ls->items[i].pool);
		free(ls->items[i].volume);
	}
	free(ls->items);
	free(ls->host);
	free(ls->uuid);
	free(ls->name);
	free(ls->break_host);
	free(ls->break_proof);
	free(ls);
}

static void set_close(struct storage_lease_set *ls)
{
	uv_close((uv_handle_t *)&ls->renewal, on_timer_closed);
	uv_close((uv_handle_t *)&ls->turn, on_timer_closed);
}

static struct lease_id id_of(const struct sweep *s)
{
	const struct storage_lease_set *ls = s->set;

	return (struct lease_id){.volume = ls->items[s->at].volume, .host = ls->host, .domain_uuid = ls->uuid,
				 .domain_name = ls->name, .generation = ls->generation};
}

/* ---- in the thread pool ---- */

static int acquire_work(struct pool_fs *fs, struct storage_op *op)
{
	const struct sweep *s = op->data;
	const struct storage_lease_set *ls = s->set;
	struct lease_id id = id_of(s);
	struct lease_break brk = {.host = ls->break_host, .generation = ls->break_generation, .proof = ls->break_proof};

	return lease_acquire(fs, &id, ls->break_host ? &brk : NULL, &op->err);
}

static int hand_over_work(struct pool_fs *fs, struct storage_op *op)
{
	const struct sweep *s = op->data;
	struct lease_id id = id_of(s);

	return lease_hand_over(fs, &id, s->next_host, s->next_generation, &op->err);
}

static int release_work(struct pool_fs *fs, struct storage_op *op)
{
	struct lease_id id = id_of(op->data);

	return lease_release(fs, &id, &op->err);
}

static int renew_work(struct pool_fs *fs, struct storage_op *op)
{
	struct lease_id id = id_of(op->data);

	return lease_renew(fs, &id, &op->err);
}

/* ---- sweeps ---- */

static void sweep_step(struct sweep *s);

static struct sweep *sweep_new(struct storage_lease_set *ls, storage_work work, void (*done)(struct sweep *), storage_cb cb,
			       void *data)
{
	struct sweep *s = mem_alloc(sizeof(*s));

	s->set = ls;
	s->work = work;
	s->end = ls->n;
	s->done = done;
	s->cb = cb;
	s->data = data;
	return s;
}

static void on_turn(uv_timer_t *timer)
{
	struct storage_lease_set *ls = timer->data;

	ls->in_step = false;
	if (ls->sweeps)
		sweep_step(ls->sweeps);
}

static void on_next_turn(struct storage_lease_set *ls)
{
	ls->in_step = true;
	uv_timer_start(&ls->turn, on_turn, 0, 0);
}

/* At once if nothing else is under way, for the guest may be waiting; but never with a callback before we return. */
static void sweep_submit(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;
	struct sweep **end = &ls->sweeps;

	while (*end) {
		/* A renewal has nothing to say any more once something else is asked. */
		if ((*end)->work == renew_work)
			(*end)->end = (*end)->at;
		end = &(*end)->next;
	}
	*end = s;
	if (ls->sweeps == s && !ls->in_step) {
		if (s->at < s->end)
			sweep_step(s);
		else
			on_next_turn(ls);
	}
}

static void sweep_end(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	/* It stays the first while it calls back: what is asked then comes after it. done() may add sweeps, or close the
	 * set if there is none. */
	ls->in_step = true;
	s->done(s);
	ls->sweeps = s->next;
	ls->in_step = false;
	free(s->next_host);
	free(s);
	if (ls->sweeps)
		on_next_turn(ls);
	else if (ls->given_up)
		set_close(ls);
}

static void sweep_after(struct storage_op *op)
{
	struct sweep *s = op->data;
	const struct pool_handle *pool = s->set->items[s->at].pool;

	if (op->rc < 0 && (s->rc == 0 || op->rc == -ESTALE)) {
		s->rc = op->rc;
		s->err = op->err;
	}
	s->succeeded += op->rc == 0;
	s->at++;
	/* All or none: the first refusal ends a taking. */
	if (s->rc < 0 && s->work == acquire_work)
		s->at = s->end;
	/* A pool that does not answer is asked once. */
	while (op->rc == -ETIMEDOUT && s->at < s->end && s->set->items[s->at].pool == pool)
		s->at++;
	s->set->in_step = false;
	sweep_step(s);
}

static void sweep_step(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;
	struct storage_op *op;
	struct err err;
	int rc;

	if (s->at >= s->end) {
		sweep_end(s);
		return;
	}
	op = storage__op_new(s->work, sweep_after, s);
	rc = storage__op_queue(ls->items[s->at].pool, op, &err);
	if (rc == 0) {
		ls->in_step = true;
		return;
	}
	storage__op_free(op);
	if (s->rc == 0) {
		s->rc = rc;
		s->err = err;
	}
	s->at = s->end;
	on_next_turn(ls);
}

static void call_back(struct sweep *s)
{
	if (s->cb)
		s->cb(s->data, s->rc, s->rc < 0 ? &s->err : NULL);
}

/* ---- renewal ---- */

static void renewed(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;
	uint64_t now = uv_now(storage__loop(ls->storage));

	if (!ls->held || ls->given_up)
		return;
	if (s->rc == 0) {
		ls->renewed_ms = now;
		ls->lost_said = false;
		return;
	}
	if (s->rc == -ESTALE)
		ls->held = false;
	else if (now - ls->renewed_ms < LOST_AFTER_MS || ls->lost_said)
		return;
	ls->lost_said = true;
	if (ls->on_lost)
		ls->on_lost(ls->on_lost_data, s->rc == -ESTALE ? -ESTALE : -ETIMEDOUT, &s->err);
}

static void on_renewal(uv_timer_t *timer)
{
	struct storage_lease_set *ls = timer->data;

	/* A stalled pool has one renewal of ours waiting, not a row of them. */
	if (ls->held && ls->n > 0 && !ls->sweeps)
		sweep_submit(sweep_new(ls, renew_work, renewed, NULL, NULL));
}

void storage_leases_on_lost(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	ls->on_lost = cb;
	ls->on_lost_data = data;
}

/* ---- taking and giving ---- */

static void became_held(struct storage_lease_set *ls)
{
	ls->held = true;
	ls->lost_said = false;
	ls->renewed_ms = uv_now(storage__loop(ls->storage));
}

/* The answer to a taking that failed, or that nobody wants any more, comes when what it had taken is released: the caller may
 * take again at once, and must not find his new leases released by the old set. */
static void undone(struct sweep *s)
{
	s->set->given_up = true;
	s->cb(s->data, s->cause_rc, &s->cause);
}

static void acquired(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;
	struct sweep *undo;

	if (ls->given_up) {
		s->rc = err_set(&s->err, ECANCELED, "domain '%s': its leases are not wanted any more", ls->name);
		call_back(s);
		return;
	}
	if (s->rc == 0) {
		became_held(ls);
		call_back(s);
		return;
	}
	/* Nothing was taken, and the server is away: asking it to forget the claim would take as long again. The next
	 * taking replaces it, and a new owner comes with a proof. */
	if (s->rc == -ETIMEDOUT && s->succeeded == 0) {
		ls->given_up = true;
		call_back(s);
		return;
	}
	undo = sweep_new(ls, release_work, undone, s->cb, s->data);
	undo->cause_rc = s->rc;
	undo->cause = s->err;
	sweep_submit(undo);
}

static int item_add(struct storage_lease_set *ls, const Gantry__Disk *disk, struct err *err)
{
	struct lease_item *item = &ls->items[ls->n];
	int rc = storage__pool_ref(ls->storage, disk->pool, &item->pool, err);

	if (rc < 0)
		return err_prefix(err, rc, "disk %s", disk->vdev);
	item->volume = str_dup(disk->volume);
	ls->n++;
	return 0;
}

static struct storage_lease_set *set_new(struct storage *st, const struct storage_lease_request *rq)
{
	struct storage_lease_set *ls = mem_alloc(sizeof(*ls));

	ls->storage = st;
	ls->host = str_dup(storage__host(st));
	ls->uuid = str_dup(rq->spec->uuid);
	ls->name = str_dup(rq->spec->name);
	ls->generation = rq->generation;
	if (rq->break_host && *rq->break_host) {
		ls->break_host = str_dup(rq->break_host);
		ls->break_proof = str_dup(rq->break_proof ? rq->break_proof : "");
		ls->break_generation = rq->break_generation;
	}
	ls->items = mem_alloc((rq->spec->n_disks + 1) * sizeof(*ls->items));
	uv_timer_init(storage__loop(st), &ls->renewal);
	uv_timer_init(storage__loop(st), &ls->turn);
	ls->open_timers = 2;
	ls->renewal.data = ls;
	ls->turn.data = ls;
	uv_timer_start(&ls->renewal, on_renewal, LEASE_RENEW_MS, LEASE_RENEW_MS);
	return ls;
}

int storage_leases_acquire(struct storage *st, const struct storage_lease_request *rq, storage_cb cb, void *data,
			   struct storage_lease_set **ret, struct err *err)
{
	struct storage_lease_set *ls = set_new(st, rq);
	int rc = 0;

	for (size_t i = 0; i < rq->spec->n_disks && rc == 0; i++) {
		const Gantry__Disk *disk = rq->spec->disks[i];

		if (*disk->pool && !disk->empty && !disk->readonly)
			rc = item_add(ls, disk, err);
	}
	if (rc < 0) {
		set_close(ls);
		return rc;
	}
	*ret = ls;
	sweep_submit(sweep_new(ls, acquire_work, acquired, cb, data));
	return 0;
}

int storage_leases_hand_over(struct storage_lease_set *ls, const char *next_host, uint64_t next_generation, storage_cb cb,
			     void *data)
{
	struct sweep *s = sweep_new(ls, hand_over_work, call_back, cb, data);

	ls->held = false;
	s->next_host = str_dup(next_host);
	s->next_generation = next_generation;
	sweep_submit(s);
	return 0;
}

static void taken_back(struct sweep *s)
{
	if (s->rc == 0 && !s->set->given_up)
		became_held(s->set);
	call_back(s);
}

int storage_leases_take_back(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	sweep_submit(sweep_new(ls, acquire_work, taken_back, cb, data));
	return 0;
}

void storage_leases_release(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	if (!ls || ls->given_up)
		return;
	ls->held = false;
	sweep_submit(sweep_new(ls, release_work, call_back, cb, data));
	ls->given_up = true; /* closed when the last sweep has ended */
}

void storage_leases_drop(struct storage_lease_set *ls)
{
	if (!ls || ls->given_up)
		return;
	ls->held = false;
	ls->given_up = true;
	if (!ls->sweeps)
		set_close(ls);
}
