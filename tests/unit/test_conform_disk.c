/* One suite for the disk under a log, over the real one and the simulator's (conform_disk.h): what was answered is there after
 * death; what is there is what some first part of the steps has made, each step whole. A plain model says what that is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterd/core/model.h"
#include "tests/unit/conform_disk.h"

#define STEPS_MAX 160
#define ENTRIES_MAX 32000

struct entry { uint64_t index, epoch; size_t len; };

/* What a log holds: the model. */
struct log {
	uint64_t promised, commit, snapshot_index, snapshot_epoch;
	size_t snapshot_len, n_voters;
	bool forgetful;
	struct entry *entries;
	size_t n;
};

struct step {
	enum { BATCH, OWN_SNAPSHOT, REMEMBER } kind;
	uint64_t serial, promised, commit, truncate_from;
	bool replace_all;
	uint64_t snapshot_index, snapshot_epoch;  /* of a replace_all or an own snapshot */
	size_t snapshot_len, n_voters;
	uint64_t first, epoch;             /* of the entries */
	size_t n, len;
};

struct bench {
	const struct disk_side *side;
	void *disk;
	struct log durable;                /* as it was when the process began */
	struct log last;                   /* as it is when all steps are done */
	struct step steps[STEPS_MAX];
	size_t n_steps, answered;          /* steps; those before the last answer, which count as answered */
	size_t failed_from;                /* the first step that was answered with an error; STEPS_MAX: none */
	uint64_t serial, rng, most_promised;
	size_t echoes;                     /* so many of the next answers are followed by a write at once */
	unsigned lost, got_there;          /* deaths at which a step was lost; at which one that was not answered was not */
};

static uint64_t draw(struct bench *b, uint64_t below)
{
	b->rng = b->rng * 6364136223846793005ull + 1442695040888963407ull;
	return below ? (b->rng >> 33) % below : 0;
}

/* ---- the model */

static void log_copy(struct log *to, const struct log *from)
{
	struct entry *entries = to->entries ? to->entries : mem_alloc(ENTRIES_MAX * sizeof(*entries));

	*to = *from;
	to->entries = entries;
	if (from->n)
		memcpy(entries, from->entries, from->n * sizeof(*entries));
}

static void log_take_snapshot(struct log *l, const struct step *st)
{
	l->snapshot_index = st->snapshot_index;
	l->snapshot_epoch = st->snapshot_epoch;
	l->snapshot_len = st->snapshot_len;
	l->n_voters = st->n_voters;
}

static void log_own_snapshot(struct log *l, const struct step *st, uint64_t kept)
{
	size_t drop = 0;

	if (st->snapshot_index <= l->snapshot_index)
		return;
	log_take_snapshot(l, st);
	while (drop < l->n && l->entries[drop].index + kept <= st->snapshot_index)
		drop++;
	memmove(l->entries, l->entries + drop, (l->n - drop) * sizeof(*l->entries));
	l->n -= drop;
}

static void log_do(struct log *l, const struct step *st, uint64_t kept)
{
	if (st->kind == REMEMBER)
		l->forgetful = false;
	if (st->kind == OWN_SNAPSHOT)
		log_own_snapshot(l, st, kept);
	if (st->kind != BATCH)
		return;
	l->promised = st->promised;
	l->commit = st->commit;
	if (st->replace_all) {
		l->n = 0;
		log_take_snapshot(l, st);
	}
	while (st->truncate_from && l->n && l->entries[l->n - 1].index >= st->truncate_from)
		l->n--;
	for (size_t i = 0; i < st->n; i++) {
		assert_true(l->n < ENTRIES_MAX);
		l->entries[l->n++] = (struct entry){.index = st->first + i, .epoch = st->epoch, .len = st->len};
	}
}

static uint64_t log_last(const struct log *l)
{
	return l->n ? l->entries[l->n - 1].index : l->snapshot_index;
}

/* ---- contents: what an entry or a snapshot holds follows from what it is */

static uint8_t byte_of(uint64_t index, uint64_t epoch, size_t at)
{
	return (uint8_t)(index * 7 + epoch * 31 + at);
}

static uint8_t *content(uint64_t index, uint64_t epoch, size_t len)
{
	uint8_t *data = len ? mem_alloc(len) : NULL;

	for (size_t i = 0; i < len; i++)
		data[i] = byte_of(index, epoch, i);
	return data;
}

static bool is_content(const uint8_t *data, size_t len, uint64_t index, uint64_t epoch)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] != byte_of(index, epoch, i))
			return false;
	return true;
}

/* Is that what the disk gave? */
static bool log_is(const struct log *l, const struct clog_disk_state *s, const struct buf *snapshot, bool forgetful)
{
	if (l->promised != s->promised_epoch || l->commit != s->commit_index || l->snapshot_index != s->snapshot_index ||
	    l->snapshot_epoch != s->snapshot_epoch || l->snapshot_len != snapshot->len || l->n_voters != s->n_voters ||
	    l->forgetful != forgetful || l->n != s->n_entries)
		return false;
	for (size_t i = 0; i < l->n_voters; i++)
		if (s->voters[i] != i + 1)
			return false;
	for (size_t i = 0; i < l->n; i++) {
		const Gantry__LogEntry *e = s->entries[i];

		if (e->index != l->entries[i].index || e->epoch != l->entries[i].epoch || e->command.len != l->entries[i].len ||
		    !is_content(e->command.data, e->command.len, e->index, e->epoch))
			return false;
	}
	return is_content(snapshot->data, snapshot->len, s->snapshot_index, s->snapshot_epoch);
}

/* ---- a disk and its processes */

static void echo(struct bench *b);

static void on_answer(void *data, bool snapshot, uint64_t which, int rc)
{
	struct bench *b = data;
	const struct step *st;

	while (b->answered < b->n_steps && b->steps[b->answered].kind == REMEMBER)
		b->answered++;
	/* In order, and nothing that was not asked. */
	assert_true(b->answered < b->n_steps);
	st = &b->steps[b->answered];
	assert_int_equal(snapshot, st->kind == OWN_SNAPSHOT);
	assert_int_equal(which, snapshot ? st->snapshot_index : st->serial);
	if (rc < 0 && b->failed_from == STEPS_MAX)
		b->failed_from = b->answered;
	/* After a failure nothing succeeds any more. */
	assert_int_equal(rc < 0, b->failed_from <= b->answered);
	b->answered++;
	if (b->echoes && b->n_steps < STEPS_MAX) {
		b->echoes--;
		echo(b);
	}
}

static void give_back(struct clog_disk_state *s, struct buf *snapshot)
{
	for (size_t i = 0; i < s->n_entries; i++)
		gantry__log_entry__free_unpacked(s->entries[i], NULL);
	free(s->entries);
	free(s->voters);
	buf_free(snapshot);
}

/* A process begins. What it finds must be what the steps have made up to one of them that is not before the last that was answered well. */
static void begin(struct bench *b)
{
	struct clog_disk_state found = {0};
	struct buf snapshot = {0};
	size_t answered = b->answered < b->failed_from ? b->answered : b->failed_from, at = 0;
	bool forgetful = false;

	assert_int_equal(b->side->begin(b->disk, &found, &snapshot, &forgetful), 0);
	for (at = 0; at < answered; at++)
		log_do(&b->durable, &b->steps[at], b->side->kept);
	while (!log_is(&b->durable, &found, &snapshot, forgetful)) {
		if (at == b->n_steps)
			fail_msg("%s: %zu of %zu steps were answered; no step from there on leads to what is there: promised %lu, committed %lu,"
				 " snapshot %lu, %zu entries to %lu%s", b->side->name, answered, b->n_steps, (unsigned long)found.promised_epoch,
				 (unsigned long)found.commit_index, (unsigned long)found.snapshot_index, found.n_entries,
				 found.n_entries ? (unsigned long)found.entries[found.n_entries - 1]->index : 0, forgetful ? ", forgetful" : "");
		log_do(&b->durable, &b->steps[at++], b->side->kept);
	}
	b->lost += at < b->n_steps;
	b->got_there += at > answered;
	/* A promise is what the safety of the log rests on: told apart. */
	assert_true(found.promised_epoch >= b->most_promised);
	b->most_promised = found.promised_epoch;
	give_back(&found, &snapshot);
	b->n_steps = b->answered = 0;
	b->failed_from = STEPS_MAX;
	log_copy(&b->last, &b->durable);
}

static void die_and_begin(struct bench *b)
{
	b->side->die(b->disk);
	for (size_t i = 0; i < b->answered && i < b->failed_from; i++)
		if (b->steps[i].kind == BATCH && b->steps[i].promised > b->most_promised)
			b->most_promised = b->steps[i].promised;
	begin(b);
}

static void bench_start(struct bench *b, const struct disk_side *side, uint64_t seed)
{
	*b = (struct bench){.side = side, .rng = seed, .failed_from = STEPS_MAX};
	b->disk = side->make(seed, on_answer, b);
	log_copy(&b->durable, &(struct log){0});
	begin(b);
}

static void bench_end(struct bench *b)
{
	b->side->free(b->disk);
	free(b->durable.entries);
	free(b->last.entries);
}

/* ---- steps */

static void write_batch(struct bench *b, const struct step *st)
{
	struct clog_disk_batch batch = {.serial = st->serial, .promised_epoch = st->promised, .commit_index = st->commit,
					.truncate_from = st->truncate_from, .replace_all = st->replace_all, .n_entries = st->n};
	uint32_t voters[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	Gantry__LogEntry *entries = mem_alloc((st->n + 1) * sizeof(*entries)), **list = mem_alloc((st->n + 1) * sizeof(*list));

	for (size_t i = 0; i < st->n; i++) {
		gantry__log_entry__init(&entries[i]);
		entries[i].index = st->first + i;
		entries[i].epoch = st->epoch;
		entries[i].command.len = st->len;
		entries[i].command.data = content(entries[i].index, st->epoch, st->len);
		list[i] = &entries[i];
	}
	batch.entries = list;
	if (st->replace_all) {
		batch.snapshot = content(st->snapshot_index, st->snapshot_epoch, st->snapshot_len);
		batch.snapshot_len = st->snapshot_len;
		batch.snapshot_index = st->snapshot_index;
		batch.snapshot_epoch = st->snapshot_epoch;
		batch.snapshot_voters = voters;
		batch.n_snapshot_voters = st->n_voters;
	}
	b->side->write(b->disk, &batch);
	/* It was copied: all of it may change at once. */
	memset(voters, 0xee, sizeof(voters));
	free((void *)batch.snapshot);
	for (size_t i = 0; i < st->n; i++)
		free(entries[i].command.data);
	memset((void *)entries, 0xee, (st->n + 1) * sizeof(*entries));
	free(entries);
	free(list);
}

static void do_step(struct bench *b, struct step st)
{
	static const uint32_t voters[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	assert_true(b->n_steps < STEPS_MAX);
	if (st.kind == BATCH)
		st.serial = ++b->serial;
	b->steps[b->n_steps++] = st;
	log_do(&b->last, &st, b->side->kept);
	if (st.kind == BATCH) {
		write_batch(b, &st);
	} else if (st.kind == OWN_SNAPSHOT) {
		uint8_t *data = content(st.snapshot_index, st.snapshot_epoch, st.snapshot_len);

		b->side->snapshot(b->disk, st.snapshot_index, st.snapshot_epoch, data, st.snapshot_len, voters, st.n_voters);
		free(data);
	} else {
		b->side->remember(b->disk);
	}
}

/* What every batch says, and n entries behind the last. */
static struct step append(const struct bench *b, size_t n, uint64_t epoch, size_t len)
{
	return (struct step){.promised = epoch, .commit = b->last.commit, .first = log_last(&b->last) + 1, .epoch = epoch, .n = n, .len = len};
}

static void echo(struct bench *b)
{
	do_step(b, append(b, 1, b->last.promised, 30));
}

static void all_answered(struct bench *b)
{
	b->side->go_on(b->disk, true);
	while (b->answered < b->n_steps && b->steps[b->answered].kind == REMEMBER)
		b->answered++;
	assert_int_equal(b->answered, b->n_steps);
}

/* ---- named cases */

#define SIDE(state) ((const struct disk_side *)*(state))

static void test_nothing_is_there_at_first(void **state)
{
	struct bench b;

	bench_start(&b, SIDE(state), 1);
	die_and_begin(&b);
	assert_int_equal(b.durable.n, 0);
	assert_false(b.durable.forgetful);
	bench_end(&b);
}

static void test_what_was_answered_is_there(void **state)
{
	struct bench b;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		bench_start(&b, SIDE(state), seed);
		do_step(&b, append(&b, 3, 1, 100));
		do_step(&b, append(&b, 2, 1, 0));
		do_step(&b, append(&b, 4, 2, 9000));
		all_answered(&b);
		do_step(&b, append(&b, 5, 2, 10));
		die_and_begin(&b);
		assert_true(b.durable.n == 9 || b.durable.n == 14);
		bench_end(&b);
	}
}

static void test_a_tail_is_cut_and_replaced(void **state)
{
	struct step st;
	struct bench b;

	bench_start(&b, SIDE(state), 2);
	do_step(&b, append(&b, 9, 1, 50));
	st = append(&b, 2, 3, 70);
	st.truncate_from = st.first = 5;
	do_step(&b, st);
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.n, 6);
	assert_int_equal(b.durable.entries[4].epoch, 3);
	/* All of it. */
	st = append(&b, 0, 4, 0);
	st.truncate_from = 1;
	do_step(&b, st);
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.n, 0);
	assert_int_equal(b.durable.promised, 4);
	bench_end(&b);
}

static struct step own_snapshot(uint64_t index, uint64_t epoch)
{
	return (struct step){.kind = OWN_SNAPSHOT, .snapshot_index = index, .snapshot_epoch = epoch, .snapshot_len = 24, .n_voters = 3};
}

/* Everything by the winner's: its snapshot and n entries behind it. */
static struct step replacement(uint64_t index, uint64_t epoch, size_t n)
{
	return (struct step){.promised = epoch, .commit = index, .replace_all = true, .snapshot_index = index, .snapshot_epoch = epoch - 1,
			     .snapshot_len = 5000, .n_voters = 5, .first = index + 1, .epoch = epoch, .n = n, .len = 40};
}

static void test_snapshots_never_go_back(void **state)
{
	struct bench b;

	bench_start(&b, SIDE(state), 3);
	do_step(&b, append(&b, 9, 1, 50));
	do_step(&b, own_snapshot(7, 1));
	do_step(&b, own_snapshot(4, 1));
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.snapshot_index, 7);
	/* One that a replacement overtook. */
	do_step(&b, replacement(100, 9, 5));
	do_step(&b, own_snapshot(9, 1));
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.snapshot_index, 100);
	assert_int_equal(b.durable.n_voters, 5);
	assert_int_equal(b.durable.n, 5);
	assert_int_equal(b.durable.entries[0].index, 101);
	bench_end(&b);
}

static void test_entries_far_behind_a_snapshot_go(void **state)
{
	struct bench b;
	uint64_t kept = SIDE(state)->kept;

	bench_start(&b, SIDE(state), 4);
	for (size_t i = 0; i < 11; i++)
		do_step(&b, append(&b, kept / 10, 1, 4));
	do_step(&b, own_snapshot(kept, 1));
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.entries[0].index, 1 + (b.durable.n < kept / 10 * 11));
	do_step(&b, own_snapshot(kept + kept / 20, 1));
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.entries[0].index, kept / 20 + 1);
	assert_int_equal(log_last(&b.durable), kept / 10 * 11);
	bench_end(&b);
}

static void test_a_promise_never_falls(void **state)
{
	struct bench b;

	bench_start(&b, SIDE(state), 5);
	for (uint64_t epoch = 1; epoch <= 40; epoch++) {
		do_step(&b, append(&b, 0, epoch, 0));
		b.side->go_on(b.disk, epoch % 3 == 0);
		if (epoch % 4 == 0)
			die_and_begin(&b);
	}
	bench_end(&b);
}

static void test_a_forgetful_log_is_so_until_it_remembers(void **state)
{
	struct bench b;

	bench_start(&b, SIDE(state), 6);
	b.side->mark_forgetful(b.disk);
	b.durable.forgetful = b.last.forgetful = true;
	do_step(&b, append(&b, 2, 1, 10));
	all_answered(&b);
	die_and_begin(&b);
	assert_true(b.durable.forgetful);
	/* Not answered itself, but nothing behind it is before it. */
	do_step(&b, (struct step){.kind = REMEMBER});
	do_step(&b, append(&b, 1, 1, 10));
	all_answered(&b);
	die_and_begin(&b);
	assert_false(b.durable.forgetful);
	assert_int_equal(b.durable.n, 3);
	bench_end(&b);
}

static void test_after_a_failure_nothing_succeeds(void **state)
{
	struct bench b;
	size_t failed;

	bench_start(&b, SIDE(state), 7);
	do_step(&b, append(&b, 2, 1, 1000));
	all_answered(&b);
	b.side->set_full(b.disk, true);
	while (b.failed_from == STEPS_MAX) {
		do_step(&b, append(&b, 4, 1, 20000));
		b.side->go_on(b.disk, true);
	}
	failed = b.failed_from;
	assert_true(failed >= 1);
	do_step(&b, own_snapshot(1, 1));
	do_step(&b, append(&b, 1, 1, 1));
	all_answered(&b);
	/* There is room again: what the failure left is unknown all the same. */
	b.side->set_full(b.disk, false);
	do_step(&b, append(&b, 1, 1, 1));
	do_step(&b, (struct step){.kind = REMEMBER});
	do_step(&b, own_snapshot(2, 1));
	all_answered(&b);
	assert_int_equal(b.failed_from, failed);
	/* A new process begins with what was answered before, and can write. Nothing of what failed is there. */
	b.n_steps = failed;
	b.answered = failed;
	die_and_begin(&b);
	do_step(&b, append(&b, 3, 2, 5));
	all_answered(&b);
	assert_int_equal(b.failed_from, STEPS_MAX);
	die_and_begin(&b);
	bench_end(&b);
}

static void test_many_wait_at_once(void **state)
{
	struct bench b;

	bench_start(&b, SIDE(state), 8);
	for (size_t i = 0; i < 150; i++)
		do_step(&b, i == 70 ? own_snapshot(30, 1) : append(&b, 1, 1 + i / 50, 10));
	all_answered(&b);
	die_and_begin(&b);
	assert_int_equal(b.durable.n, 149);
	bench_end(&b);
}

/* As the log does: what has become durable is acked, and brings the next. */
static void test_an_answer_brings_the_next_write(void **state)
{
	struct bench b;

	for (uint64_t seed = 1; seed <= 10; seed++) {
		bench_start(&b, SIDE(state), seed);
		for (size_t i = 0; i < 40; i++)
			do_step(&b, append(&b, 1, 1, 10));
		b.echoes = 60;
		if (seed % 2) {
			all_answered(&b);
			assert_int_equal(b.n_steps, 100);
		} else {
			for (size_t i = 0; i < seed; i++)
				b.side->go_on(b.disk, false);
		}
		b.echoes = 0;
		die_and_begin(&b);
		bench_end(&b);
	}
}

/* The log never asks for it; if it did, no disk may take it in silence. */
static void test_a_log_against_its_rules_is_refused(void **state)
{
	const struct step bad[] = {
		{.promised = 2, .first = 6, .epoch = 2, .n = 2, .len = 5},              /* a gap */
		{.promised = 2, .first = 3, .epoch = 2, .n = 2, .len = 5},              /* twice */
		{.promised = 2, .first = 4, .epoch = 1, .n = 2, .len = 5},              /* the epoch goes back */
		{.promised = 2, .first = 4, .epoch = 3, .n = 1, .len = 5},              /* not promised */
		{.promised = 2, .commit = 9, .first = 4, .epoch = 2, .n = 1, .len = 5}, /* committed and not there */
		{.kind = OWN_SNAPSHOT, .snapshot_index = 9, .snapshot_epoch = 2, .snapshot_len = 4, .n_voters = 1},
	};
	struct clog_disk_state found = {0};
	struct buf snapshot = {0};
	bool forgetful;
	struct bench b;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		bench_start(&b, SIDE(state), 9);
		do_step(&b, append(&b, 3, 2, 5));
		do_step(&b, bad[i]);
		all_answered(&b);
		b.side->die(b.disk);
		if (b.failed_from == STEPS_MAX && b.side->begin(b.disk, &found, &snapshot, &forgetful) != -EBADMSG)
			fail_msg("%s: case %zu was taken", b.side->name, i);
		bench_end(&b);
	}
}

/* ---- random runs */

static struct step random_batch(struct bench *b)
{
	uint64_t epoch = b->last.promised + (draw(b, 6) == 0 || !b->last.promised), last = log_last(&b->last);
	struct step st = append(b, draw(b, 6), epoch, draw(b, 20) ? draw(b, 120) : 30000);

	st.commit += draw(b, last - b->last.commit + 1);
	if (last > st.commit && draw(b, 4) == 0) {
		st.promised = st.epoch = epoch + 1;
		st.truncate_from = st.first = st.commit + 1 + draw(b, last - st.commit);
	}
	return st;
}

static void random_step(struct bench *b)
{
	uint64_t kind = draw(b, 20);

	if (kind < 3 && b->last.commit)
		do_step(b, own_snapshot(1 + draw(b, b->last.commit), 1));
	else if (kind == 3)
		do_step(b, replacement(log_last(&b->last) + draw(b, 30) + 1, b->last.promised + 2, draw(b, 5)));
	else if (kind == 4)
		do_step(b, (struct step){.kind = REMEMBER});
	else
		do_step(b, random_batch(b));
}

static void random_run(const struct disk_side *side, uint64_t seed, unsigned *lost, unsigned *got_there)
{
	struct bench b;

	bench_start(&b, side, seed);
	for (int process = 0; process < 6; process++) {
		if (draw(&b, 4) == 0) {
			b.side->mark_forgetful(b.disk);
			b.durable.forgetful = b.last.forgetful = true;
		}
		for (uint64_t n = draw(&b, STEPS_MAX / 2); n; n--) {
			random_step(&b);
			b.echoes = draw(&b, 4) ? 0 : 1 + draw(&b, 3);
			if (b.n_steps + 8 > STEPS_MAX)
				break;
			if (draw(&b, 3))
				side->go_on(b.disk, draw(&b, 20) == 0);
		}
		die_and_begin(&b);
	}
	*lost += b.lost;
	*got_there += b.got_there;
	bench_end(&b);
}

static void test_random_runs(void **state)
{
	unsigned n = SIDE(state)->seeds, lost = 0, got_there = 0;

	print_message("%s: seeds 1-%u\n", SIDE(state)->name, n);
	for (uint64_t seed = 1; seed <= n; seed++)
		random_run(SIDE(state), seed, &lost, &got_there);
	print_message("%u deaths lost a step, %u left one that was not answered yet\n", lost, got_there);
	/* Both sides show both. */
	assert_true(lost > n / 2);
	assert_true(got_there > n / 2);
}

#define CASES(side) \
	T(test_nothing_is_there_at_first, side), T(test_what_was_answered_is_there, side), T(test_a_tail_is_cut_and_replaced, side), \
	T(test_snapshots_never_go_back, side), T(test_entries_far_behind_a_snapshot_go, side), T(test_a_promise_never_falls, side), \
	T(test_a_forgetful_log_is_so_until_it_remembers, side), T(test_after_a_failure_nothing_succeeds, side), \
	T(test_many_wait_at_once, side), T(test_an_answer_brings_the_next_write, side), T(test_a_log_against_its_rules_is_refused, side), T(test_random_runs, side)
#define T(f, side) {#f " (" #side ")", f, NULL, NULL, (void *)&side}

int main(void)
{
	const struct CMUnitTest tests[] = {CASES(disk_side_real), CASES(disk_side_sim)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
