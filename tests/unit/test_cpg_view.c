/* Views of the group by traces: what corosync calls, in its order, and what must come out. The orders are those of
 * real runs (two descriptors, members first, then the ring). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterd/daemon/cpg_view.h"
#include "lib/limits.h"

static char trace[4096];
static uint64_t last_id;

static void on_view(void *data, uint64_t id, const uint32_t *members, size_t n)
{
	size_t at = strlen(trace);

	at += (size_t)snprintf(trace + at, sizeof(trace) - at, "view(");
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(trace + at, sizeof(trace) - at, "%s%u", i ? "," : "", members[i]);
	snprintf(trace + at, sizeof(trace) - at, ") ");
	assert_true(id != 0);
	last_id = id;
}

static void on_message(void *data, uint32_t sender, const uint8_t *message, size_t len)
{
	size_t at = strlen(trace);

	snprintf(trace + at, sizeof(trace) - at, "%u:%.*s ", sender, (int)len, (const char *)message);
}

static const struct cpg_view_sink sink = {.on_view = on_view, .on_message = on_message};

#define MEMBERS(view, nodes_changed, now, ...) \
	CHANGE(view, ((struct cpg_view_change){.nodes = nodes_changed}), now, __VA_ARGS__)
#define CHANGE(view, change, now, ...) \
	cpg_view_members(view, (struct cpg_view_member[]){__VA_ARGS__}, \
			 sizeof((struct cpg_view_member[]){__VA_ARGS__}) / sizeof(struct cpg_view_member), &(change), now)
#define SAY(view, sender, text) cpg_view_message(view, sender, (const uint8_t *)(text), strlen(text))
#define EXPECT(text) do { assert_string_equal(trace, text); trace[0] = '\0'; } while (0)

static struct cpg_view *fresh(void)
{
	trace[0] = '\0';
	return cpg_view_new(&sink, NULL);
}

static void test_own_join_waits_for_the_ring(void **state)
{
	struct cpg_view *v = fresh();

	MEMBERS(v, false, 0, {1, 100});
	EXPECT("");
	cpg_view_ring(v, 1, 4);
	EXPECT("view(1) ");
	/* A process joins: no ring follows. */
	MEMBERS(v, false, 10, {2, 200}, {1, 100});
	EXPECT("view(1,2) ");
	cpg_view_free(v);
}

static void test_messages_wait_with_the_view(void **state)
{
	struct cpg_view *v = fresh();

	MEMBERS(v, false, 0, {1, 100}, {2, 200}, {3, 300});
	cpg_view_ring(v, 1, 4);
	SAY(v, 3, "a");
	EXPECT("view(1,2,3) 3:a ");
	/* Node 3 dies. What is delivered between the two callbacks belongs to the new configuration. */
	MEMBERS(v, true, 50, {1, 100}, {2, 200});
	SAY(v, 2, "b");
	SAY(v, 1, "c");
	EXPECT("");
	cpg_view_ring(v, 1, 8);
	EXPECT("view(1,2) 2:b 1:c ");
	SAY(v, 2, "d");
	EXPECT("2:d ");
	cpg_view_free(v);
}

static void test_alike_on_all_members(void **state)
{
	struct cpg_view *v = fresh();
	uint64_t one, two;

	/* One that was there, and one that joins: other orders of the same facts. */
	MEMBERS(v, false, 0, {1, 100});
	cpg_view_ring(v, 1, 4);
	cpg_view_ring(v, 1, 8);
	MEMBERS(v, false, 0, {1, 100}, {2, 200});
	one = last_id;
	cpg_view_reset(v);
	MEMBERS(v, false, 0, {2, 200}, {1, 100});
	cpg_view_ring(v, 1, 8);
	two = last_id;
	assert_true(one == two);
	/* The same nodes, but one process is another one: another view. */
	MEMBERS(v, false, 0, {2, 201}, {1, 100});
	assert_true(last_id != one);
	/* Or another ring. */
	MEMBERS(v, false, 0, {2, 200}, {1, 100});
	assert_true(last_id == one);
	cpg_view_ring(v, 1, 12);
	assert_true(last_id != one);
	cpg_view_free(v);
}

/* Found on real corosyncs (tests/lab/test_conformance.py): a clusterd comes and goes, and the others would be in the view that they were in before. */
static void test_an_id_never_comes_back(void **state)
{
	struct cpg_view *b = fresh(), *c = fresh();
	struct cpg_view_member a1 = {1, 100}, a2 = {1, 101}, joiner = {3, 300};
	struct cpg_view_change own = {.joined = &joiner, .n_joined = 1}, comes = {.joined = &a1, .n_joined = 1}, goes = {.left = &a1, .n_left = 1},
			       comes_again = {.joined = &a2, .n_joined = 1}, goes_again = {.left = &a2, .n_left = 1};
	const struct cpg_view_change *later[] = {&comes, &goes, &comes_again, &goes_again};
	uint64_t seen[5];

	MEMBERS(b, false, 0, {2, 200});
	cpg_view_ring(b, 1, 4);
	CHANGE(b, own, 0, {2, 200}, {3, 300});
	seen[0] = last_id;
	CHANGE(c, own, 0, {3, 300}, {2, 200});
	cpg_view_ring(c, 1, 4);
	assert_true(last_id == seen[0]);
	for (size_t i = 0; i < 4; i++) {
		struct cpg_view_member all[] = {{2, 200}, {3, 300}, i < 2 ? a1 : a2};

		cpg_view_members(b, all, 3 - i % 2, later[i], 0);
		seen[i + 1] = last_id;
		cpg_view_members(c, all, 3 - i % 2, later[i], 0);
		assert_true(last_id == seen[i + 1]);
		for (size_t k = 0; k <= i; k++)
			assert_true(last_id != seen[k]);
	}
	cpg_view_free(b);
	cpg_view_free(c);
}

static void test_ring_alone_is_a_view(void **state)
{
	struct cpg_view *v = fresh();

	MEMBERS(v, false, 0, {1, 100});
	cpg_view_ring(v, 1, 4);
	EXPECT("view(1) ");
	/* A node without our process came or went. */
	cpg_view_ring(v, 1, 8);
	EXPECT("view(1) ");
	/* The same again says nothing. */
	cpg_view_ring(v, 1, 8);
	EXPECT("");
	cpg_view_free(v);
}

/* A host that slept: alone, then all, and one ring only. */
static void test_two_changes_one_ring(void **state)
{
	struct cpg_view *v = fresh();
	uint64_t before;

	MEMBERS(v, false, 0, {1, 100}, {2, 200}, {3, 300});
	cpg_view_ring(v, 1, 4);
	before = last_id;
	trace[0] = '\0';
	MEMBERS(v, true, 9000, {3, 300});
	SAY(v, 3, "old");
	MEMBERS(v, true, 9000, {1, 100}, {2, 200}, {3, 300});
	EXPECT("view(3) 3:old ");
	SAY(v, 1, "new");
	EXPECT("");
	cpg_view_ring(v, 1, 12);
	EXPECT("view(1,2,3) 1:new ");
	assert_true(last_id != before);
	cpg_view_free(v);
}

static void test_late_ring(void **state)
{
	struct cpg_view *v = fresh();

	MEMBERS(v, false, 0, {1, 100}, {2, 200});
	cpg_view_ring(v, 1, 4);
	trace[0] = '\0';
	MEMBERS(v, true, 1000, {1, 100});
	SAY(v, 1, "x");
	cpg_view_tick(v, 1000 + CPG_VIEW_HOLD_MS - 1);
	EXPECT("");
	assert_true(cpg_view_is_holding(v));
	cpg_view_tick(v, 1000 + CPG_VIEW_HOLD_MS);
	EXPECT("view(1) 1:x ");
	assert_false(cpg_view_is_holding(v));
	/* It comes all the same: a new view, with the right id. */
	cpg_view_ring(v, 1, 8);
	EXPECT("view(1) ");
	cpg_view_free(v);
}

static void test_flood_does_not_wait(void **state)
{
	struct cpg_view *v = fresh();
	size_t len = 1 << 20, n = 0;
	uint8_t *big = calloc(1, len);

	MEMBERS(v, false, 0, {1, 100});
	cpg_view_ring(v, 1, 4);
	MEMBERS(v, true, 0, {1, 100}, {2, 200});
	while (cpg_view_is_holding(v) && n < 100) {
		cpg_view_message(v, 2, big, len);
		n++;
		trace[0] = '\0';
	}
	assert_true(n >= LIMIT_CPG_HELD_BYTES / len && n < 100);
	free(big);
	cpg_view_free(v);
}

/* Two processes of one node, as while clusterd is restarted: the node counts once. */
static void test_node_counts_once(void **state)
{
	struct cpg_view *v = fresh();

	MEMBERS(v, false, 0, {1, 100}, {2, 200}, {1, 101});
	cpg_view_ring(v, 1, 4);
	EXPECT("view(1,2) ");
	cpg_view_free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_join_waits_for_the_ring), cmocka_unit_test(test_messages_wait_with_the_view),
		cmocka_unit_test(test_alike_on_all_members), cmocka_unit_test(test_an_id_never_comes_back),
		cmocka_unit_test(test_ring_alone_is_a_view),
		cmocka_unit_test(test_two_changes_one_ring), cmocka_unit_test(test_late_ring),
		cmocka_unit_test(test_flood_does_not_wait), cmocka_unit_test(test_node_counts_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
