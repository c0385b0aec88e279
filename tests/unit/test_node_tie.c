/* Exactly half of the voters: whole members in a group of their own, whom they fence and what they wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clusterd/core/node.h"
#include "tests/unit/model_fixture.h"

#define MEMBERS_MAX 4

struct queued {
	struct queued *next;
	size_t from;             /* its sender, or whose disk it is */
	unsigned part;           /* the sender's, when it sent */
	bool disk;
	uint64_t serial;
	struct buf data;
};

struct world {
	struct fixture f;
	size_t n;
	uint64_t now_ms;
	struct node *node[MEMBERS_MAX + 1];
	unsigned part[MEMBERS_MAX + 1], parts;
	struct queued *head, **tail;
	struct buf fences;       /* "A:hostB " for each that was asked for */
};

struct member { struct world *w; size_t id; };

static struct member member[MEMBERS_MAX + 1];

static void act(void *data, const struct node_action *a)
{
	struct member *m = data;
	struct queued *q;

	if (a->type == NODE_ACTION_FENCE)
		buf_printf(&m->w->fences, "%c:%s ", (int)('A' + m->id - 1), a->u.fence.host->name);
	if (a->type != NODE_ACTION_SEND && a->type != NODE_ACTION_DISK)
		return;
	q = mem_alloc(sizeof(*q));
	q->from = m->id;
	q->part = m->w->part[m->id];
	q->disk = a->type == NODE_ACTION_DISK;
	if (q->disk)
		q->serial = a->u.disk->serial;
	else
		buf_append(&q->data, a->u.send.data, a->u.send.len);
	*m->w->tail = q;
	m->w->tail = &q->next;
}

static void step(struct world *w, size_t id, struct node_event *e)
{
	e->now_ms = e->wall_ms = w->now_ms;
	if (w->node[id])
		node_step(w->node[id], e);
}

static void run(struct world *w)
{
	while (w->head) {
		struct queued *q = w->head;
		struct node_event disk = {.type = NODE_EVENT_DISK_DONE, .u.disk_done.serial = q->serial};
		struct node_event message = {.type = NODE_EVENT_MESSAGE,
					     .u.message = {.sender = (uint32_t)q->from, .data = q->data.data, .len = q->data.len}};

		w->head = q->next;
		if (!w->head)
			w->tail = &w->head;
		if (q->disk)
			step(w, q->from, &disk);
		for (size_t i = 1; i <= w->n && !q->disk; i++)
			if (q->part == w->part[i])
				step(w, i, &message);
		buf_free(&q->data);
		free(q);
	}
}

static void pass(struct world *w, uint64_t ms)
{
	for (uint64_t end = w->now_ms + ms; w->now_ms < end; w->now_ms += NODE_TICK_MS) {
		for (size_t i = 1; i <= w->n; i++)
			step(w, i, &(struct node_event){.type = NODE_EVENT_TICK});
		run(w);
	}
}

/* These see each other from now on, as a group of clusterds, and the ring also has `more`. */
static void view(struct world *w, const char *members, const char *more)
{
	uint32_t ring[2 * MEMBERS_MAX];
	size_t n = 0, n_ring;

	w->parts++;
	for (; *members; members++) {
		ring[n++] = (uint32_t)(*members - 'A' + 1);
		w->part[ring[n - 1]] = w->parts;
	}
	for (n_ring = n; *more; more++)
		ring[n_ring++] = (uint32_t)(*more - 'A' + 1);
	for (size_t i = 0; i < n; i++) {
		step(w, ring[i], &(struct node_event){.type = NODE_EVENT_RING, .u.ring = {.nodes = ring, .n = n_ring}});
		step(w, ring[i], &(struct node_event){.type = NODE_EVENT_VIEW, .u.view = {.id = w->parts, .members = ring, .n_members = n}});
	}
	run(w);
	pass(w, 500);
}

static void corosync_says(struct world *w, size_t id, bool device, bool votes)
{
	step(w, id, &(struct node_event){.type = NODE_EVENT_VOTEQUORUM,
		.u.votequorum = {.known = true, .quorate = votes, .device_configured = device, .device_votes = votes}});
}

static void fenced(struct world *w, size_t by, const char *host, int rc, const char *text)
{
	step(w, by, &(struct node_event){.type = NODE_EVENT_FENCED, .u.fenced = {.host = host, .rc = rc, .text = text}});
	run(w);
}

static void off(struct world *w, size_t id)
{
	node_free(w->node[id]);
	w->node[id] = NULL;
	w->part[id] = 0;
}

/* A process that begins with what every disk had at the start. */
static void begin(struct world *w, size_t id)
{
	static const char *const names[] = {"", "hostA", "hostB", "hostC", "hostD"};
	struct node_options o = {.host = names[id], .act = act, .data = &member[id]};
	struct clog_disk_state disk = {.promised_epoch = 1, .commit_index = w->f.index, .snapshot_index = w->f.index, .snapshot_epoch = 1,
				       .voters = mem_alloc(MEMBERS_MAX * sizeof(uint32_t)), .n_voters = w->n, .voters_index = w->f.index};
	struct buf snapshot = {0};

	member[id] = (struct member){w, id};
	for (size_t i = 0; i < w->n; i++)
		disk.voters[i] = (uint32_t)i + 1;
	model_snapshot(&w->f.m, &snapshot);
	w->node[id] = node_new(&o);
	assert_int_equal(node_install(w->node[id], snapshot.data, snapshot.len, NULL), 0);
	buf_free(&snapshot);
	node_begin(w->node[id], (uint32_t)id, &disk, false, w->now_ms);
	step(w, id, &(struct node_event){.type = NODE_EVENT_CONNECTED});
	corosync_says(w, id, false, false);
}

static void make_world(struct world *w, size_t n, bool devices)
{
	*w = (struct world){.n = n, .now_ms = 100000};
	w->tail = &w->head;
	fixture_start(&w->f);
	fixture_ok(&w->f, "{'cluster_init': {'name': 'test', 'uuid': '11111111-2222-4333-8444-555555555555',"
			  " 'host': {'node_id': 1, 'name': 'hostA', 'address': '10.79.0.1'}}}");
	for (size_t i = 1; i <= n; i++) {
		char host = (char)('A' + i - 1);
		char *add = str_printf("{'host_add': {'host': {'node_id': %zu, 'name': 'host%c', 'address': '10.79.0.%zu'}}}", i, host, i);
		char *online = str_printf("{'host_state': {'name': 'host%c', 'state': 'online', 'incarnation': 1, 'reason': 'x'}}", host);
		char *fence = str_printf("{'fence_set': {'host': 'host%c', 'devices': [{'agent': 'fence_lab'}]}}", host);

		if (i > 1)
			fixture_ok(&w->f, add);
		fixture_ok(&w->f, online);
		if (devices)
			fixture_ok(&w->f, fence);
		free(add);
		free(online);
		free(fence);
	}
	for (size_t i = 1; i <= n; i++)
		begin(w, i);
}

static void end_world(struct world *w)
{
	run(w);
	for (size_t i = 1; i <= w->n; i++)
		if (w->node[i])
			off(w, i);
	fixture_end(&w->f);
	buf_free(&w->fences);
}

static void assert_fences(struct world *w, const char *want)
{
	assert_string_equal(buf_str(&w->fences), want);
}

static void assert_words(struct world *w, size_t id, const char *words)
{
	struct buf text = {0};

	node_state_text(w->node[id], &text);
	if (!strstr(buf_str(&text), words))
		fail_msg("'%s' is not in: %s", words, buf_str(&text));
	buf_free(&text);
}

static void assert_state(struct world *w, size_t id, const char *host, Gantry__HostState state)
{
	assert_int_equal(model_host(node_model(w->node[id]), host)->state, state);
}

/* ---- two hosts */

static void test_lower_id_goes_first_and_alone(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	assert_true(node_is_current(w.node[1]) && node_is_current(w.node[2]));
	view(&w, "A", "");
	assert_fences(&w, "A:hostB ");
	assert_words(&w, 1, "no quorum: 1 of 2 voters is here (hostA); hostB is missing: hostB is being fenced");
	off(&w, 2);
	fenced(&w, 1, "hostB", 0, "off");
	pass(&w, 100);
	assert_true(node_is_current(w.node[1]));
	assert_state(&w, 1, "hostB", GANTRY__HOST_STATE__HOST_STATE_DEAD);
	/* The proof is in the log: the new leader asks for no other one. */
	pass(&w, 60000);
	assert_fences(&w, "A:hostB ");
	/* Back: outvoted, online, and a voter again. */
	begin(&w, 2);
	view(&w, "AB", "");
	assert_true(node_is_current(w.node[2]));
	assert_state(&w, 2, "hostB", GANTRY__HOST_STATE__HOST_STATE_ONLINE);
	assert_int_equal(node_model(w.node[2])->state->n_voters, 2);
	end_world(&w);
}

static void test_higher_id_is_courteous(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	view(&w, "B", "");
	pass(&w, 5000);
	assert_fences(&w, "");
	assert_words(&w, 2, "hostA is missing: fenced in a few seconds");
	pass(&w, 1000);
	assert_fences(&w, "B:hostA ");
	end_world(&w);
}

/* A clusterd that crashed, or is being upgraded. */
static void test_who_is_in_the_ring_is_not_fenced(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	view(&w, "A", "B");
	pass(&w, 60000);
	assert_fences(&w, "");
	assert_words(&w, 1, "corosync runs there and clusterd does not");
	/* Then the host goes. */
	view(&w, "A", "");
	assert_fences(&w, "A:hostB ");
	end_world(&w);
}

/* It sees itself alone until the rings merge. */
static void test_a_corosync_that_has_just_begun_has_patience(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	step(&w, 1, &(struct node_event){.type = NODE_EVENT_DISCONNECTED, .u.disconnected.text = "gone"});
	step(&w, 1, &(struct node_event){.type = NODE_EVENT_CONNECTED});
	view(&w, "A", "");
	pass(&w, 10000);
	assert_fences(&w, "");
	pass(&w, 2000);
	assert_fences(&w, "A:hostB ");
	end_world(&w);
}

static void on_result(void *data, const Gantry__CommandResult *result)
{
	*(Gantry__Status *)data = result->status;
}

static void confirm(struct world *w, size_t id, char *host, Gantry__Status *status)
{
	Gantry__Command c = GANTRY__COMMAND__INIT;
	Gantry__CmdFenceConfirm body = GANTRY__CMD_FENCE_CONFIRM__INIT;

	body.host = host;
	c.body_case = GANTRY__COMMAND__BODY_FENCE_CONFIRM;
	c.fence_confirm = &body;
	*status = GANTRY__STATUS__STATUS_FAILED;
	step(w, id, &(struct node_event){.type = NODE_EVENT_PROPOSE, .u.propose = {.command = &c, .patient = true, .cb = on_result, .data = status}});
	pass(w, 500);
}

static void test_one_that_has_just_begun_waits_for_a_person(void **state)
{
	char host[] = "hostB";
	Gantry__Status status;
	struct world w;

	make_world(&w, 2, true);
	view(&w, "A", "B");
	confirm(&w, 1, host, &status);
	assert_int_equal(status, GANTRY__STATUS__STATUS_NO_QUORUM);
	view(&w, "A", "");
	pass(&w, 60000);
	assert_fences(&w, "");
	assert_words(&w, 1, "this clusterd has just begun and may have slept through what hostB did");
	confirm(&w, 1, host, &status);
	assert_int_equal(status, GANTRY__STATUS__STATUS_OK);
	assert_true(node_is_current(w.node[1]));
	assert_state(&w, 1, "hostB", GANTRY__HOST_STATE__HOST_STATE_DEAD);
	assert_fences(&w, "");
	end_world(&w);
}

static void test_no_proof_no_going_on(void **state)
{
	char host[] = "hostB";
	Gantry__Status status;
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	view(&w, "A", "");
	fenced(&w, 1, "hostB", -5, "no answer");
	assert_words(&w, 1, "hostB could not be proven dead: no answer (it is tried again). Bring it back, or confirm that it is off with "
			    "'clusterctl fence confirm hostB --yes'");
	pass(&w, 4900);
	assert_fences(&w, "A:hostB ");
	pass(&w, 200);
	assert_fences(&w, "A:hostB A:hostB ");
	fenced(&w, 1, "hostB", -5, "no answer");
	assert_false(node_is_current(w.node[1]));
	confirm(&w, 1, host, &status);
	assert_int_equal(status, GANTRY__STATUS__STATUS_OK);
	end_world(&w);

	make_world(&w, 2, false);
	view(&w, "AB", "");
	view(&w, "A", "");
	assert_fences(&w, "");
	assert_words(&w, 1, "hostB has no fence device. Bring it back, or confirm");
	end_world(&w);
}

/* ---- with a quorum device */

static void test_the_devices_vote_of_an_earlier_view_does_not_count(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	corosync_says(&w, 1, true, true);
	corosync_says(&w, 2, true, true);
	view(&w, "AB", "");
	corosync_says(&w, 1, true, true);
	corosync_says(&w, 2, true, true);
	view(&w, "A", "");
	view(&w, "B", "");
	pass(&w, 20000);
	assert_fences(&w, "");
	assert_words(&w, 1, "the quorum device has not given its vote to this half: bring hostB back, or confirm");
	corosync_says(&w, 2, true, true);
	pass(&w, 100);
	assert_fences(&w, "B:hostA ");
	end_world(&w);
}

static void test_of_four_two_go_on_with_a_device_only(void **state)
{
	struct world w;

	make_world(&w, 4, true);
	view(&w, "ABCD", "");
	view(&w, "AB", "");
	view(&w, "CD", "");
	pass(&w, 20000);
	assert_fences(&w, "");
	assert_words(&w, 3, "two of four go on alone only with a quorum device");
	assert_words(&w, 4, "the host of the lowest node id here sees to it");
	for (size_t i = 3; i <= 4; i++)
		corosync_says(&w, i, true, true);
	pass(&w, 100);
	assert_fences(&w, "C:hostA C:hostB ");
	off(&w, 1);
	fenced(&w, 3, "hostA", 0, "off");
	pass(&w, 1000);
	assert_words(&w, 3, "hostA is proven dead, hostB is being fenced");
	assert_false(node_is_current(w.node[3]) || node_is_current(w.node[4]));
	off(&w, 2);
	fenced(&w, 3, "hostB", 0, "off");
	pass(&w, 60000);
	assert_true(node_is_current(w.node[3]) && node_is_current(w.node[4]));
	assert_int_equal(node_model(w.node[4])->state->n_voters, 2);
	for (size_t i = 3; i <= 4; i++) {
		assert_state(&w, i, "hostA", GANTRY__HOST_STATE__HOST_STATE_DEAD);
		assert_state(&w, i, "hostB", GANTRY__HOST_STATE__HOST_STATE_DEAD);
	}
	assert_fences(&w, "C:hostA C:hostB ");
	end_world(&w);
}

/* ---- what stands, and what has to be waited for */

static void three(struct world *w)
{
	make_world(w, 3, true);
	view(w, "ABC", "");
	pass(w, 31000); /* who may be booting has had the time */
}

/* The log had no quorum meanwhile, the hosts had one all the time. */
static void test_a_clusterd_that_hangs_makes_nobody_wait_for_a_lost_host(void **state)
{
	struct world w;

	three(&w);
	off(&w, 2);
	view(&w, "A", "B");
	pass(&w, 10000);
	assert_fences(&w, "");
	begin(&w, 2);
	view(&w, "AB", "");
	pass(&w, 3000);
	assert_fences(&w, "A:hostC ");
	end_world(&w);
}

/* Nor did the hosts: the third may be booting like the second. */
static void test_after_a_loss_of_most_hosts_the_rest_may_be_booting(void **state)
{
	struct world w;

	three(&w);
	off(&w, 1);
	off(&w, 3);
	view(&w, "B", "");
	pass(&w, 10000);
	begin(&w, 3);
	view(&w, "BC", "");
	pass(&w, 25000);
	assert_fences(&w, "");
	pass(&w, 6000);
	assert_fences(&w, "B:hostA ");
	end_world(&w);
}

static void test_a_watchdog_proves_nothing_to_half_of_two(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	view(&w, "AB", "");
	view(&w, "A", "");
	assert_fences(&w, "A:hostB ");
	step(&w, 1, &(struct node_event){.type = NODE_EVENT_FENCED, .u.fenced = {.host = "hostB", .rc = 0, .text = "not fed for 45 s", .by_time = true}});
	run(&w);
	pass(&w, 1000);
	assert_false(node_is_current(w.node[1]));
	assert_words(&w, 1, "only its watchdog says so");
	end_world(&w);
}

static void test_half_of_two_fences_nobody_while_it_is_disarmed(void **state)
{
	struct world w;

	make_world(&w, 2, true);
	fixture_ok(&w.f, "{'ha_arm': {'armed': false, 'for_ms': 160000}}");
	for (size_t i = 1; i <= 2; i++) {
		off(&w, i);
		begin(&w, i);
	}
	view(&w, "AB", "");
	view(&w, "A", "");
	pass(&w, 50000);
	assert_fences(&w, "");
	assert_words(&w, 1, "automatic action is off");
	/* Nobody can arm it again without a quorum. */
	pass(&w, 15000);
	assert_fences(&w, "A:hostB ");
	end_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lower_id_goes_first_and_alone),
		cmocka_unit_test(test_higher_id_is_courteous),
		cmocka_unit_test(test_a_clusterd_that_hangs_makes_nobody_wait_for_a_lost_host),
		cmocka_unit_test(test_after_a_loss_of_most_hosts_the_rest_may_be_booting),
		cmocka_unit_test(test_a_watchdog_proves_nothing_to_half_of_two),
		cmocka_unit_test(test_half_of_two_fences_nobody_while_it_is_disarmed),
		cmocka_unit_test(test_who_is_in_the_ring_is_not_fenced),
		cmocka_unit_test(test_a_corosync_that_has_just_begun_has_patience),
		cmocka_unit_test(test_one_that_has_just_begun_waits_for_a_person),
		cmocka_unit_test(test_no_proof_no_going_on),
		cmocka_unit_test(test_the_devices_vote_of_an_earlier_view_does_not_count),
		cmocka_unit_test(test_of_four_two_go_on_with_a_device_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
