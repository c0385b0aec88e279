/* Whole members over a group and disks in memory that do at once what they are told: what a member does when it must not go on, and
 * when half of the voters go on alone. Faults and races are the simulator's (tests/sim). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterd/core/node.h"
#include "lib/buf.h"
#include "proto/pb.h"

#define NODES_MAX 4

struct message { struct message *next; uint32_t sender; struct buf data; };

struct member {
	struct node *node;
	uint32_t id;
	char host[8];
	bool in_group, hung, stopped, disk_fails, disk_is_slow;
	uint64_t serials[256];
	size_t n_serials;
	unsigned fences, goals, quorate, not_quorate;
	char fencing[16];
	struct message *missed[64];   /* what came while it hung */
	size_t n_missed;
};

static struct {
	struct member m[NODES_MAX + 1];
	uint32_t n;
	struct message *head, **tail;
	uint64_t now_ms, view;
	unsigned answers;
	Gantry__Status status;
	char text[ERR_TEXT_MAX];
} w;

static void act(void *data, const struct node_action *a)
{
	struct member *m = data;

	switch (a->type) {
	case NODE_ACTION_SEND: {
		struct message *msg = mem_alloc(sizeof(*msg));

		msg->sender = m->id;
		buf_append(&msg->data, a->u.send.data, a->u.send.len);
		*w.tail = msg;
		w.tail = &msg->next;
		break;
	}
	case NODE_ACTION_DISK:
		assert_true(m->n_serials < 256);
		m->serials[m->n_serials++] = a->u.disk->serial;
		break;
	case NODE_ACTION_STOPPED:
		m->stopped = true;
		break;
	case NODE_ACTION_FENCE:
		m->fences++;
		snprintf(m->fencing, sizeof(m->fencing), "%s", a->u.fence.host->name);
		break;
	case NODE_ACTION_GOALS:
		m->goals++;
		break;
	case NODE_ACTION_QUORUM:
		m->quorate += a->u.quorum.quorate;
		m->not_quorate += !a->u.quorum.quorate;
		break;
	default:
		break;
	}
}

static void give(struct member *m, struct node_event e)
{
	e.now_ms = w.now_ms;
	e.wall_ms = 1000000 + w.now_ms;
	if (m->node)
		node_step(m->node, &e);
}

static void disk_answers(struct member *m)
{
	while (m->n_serials && !m->disk_is_slow) {
		struct node_event e = {.type = NODE_EVENT_DISK_DONE};

		e.u.disk_done.serial = m->serials[0];
		e.u.disk_done.rc = m->disk_fails ? -28 : 0;
		e.u.disk_done.text = "no space left on device";
		memmove(m->serials, m->serials + 1, --m->n_serials * sizeof(*m->serials));
		give(m, e);
	}
}

static void deliver(struct member *m, struct message *msg)
{
	give(m, (struct node_event){.type = NODE_EVENT_MESSAGE,
				    .u.message = {.sender = msg->sender, .data = msg->data.data, .len = msg->data.len}});
}

static void message_free(struct message *msg)
{
	buf_free(&msg->data);
	free(msg);
}

static void keep_for_later(struct member *m, const struct message *msg)
{
	struct message *copy = mem_alloc(sizeof(*copy));

	assert_true(m->n_missed < 64);
	copy->sender = msg->sender;
	buf_append(&copy->data, msg->data.data, msg->data.len);
	m->missed[m->n_missed++] = copy;
}

/* Until nothing is under way any more. */
static void settle(void)
{
	bool busy = true;

	while (busy) {
		struct message *msg = w.head;

		busy = msg != NULL;
		if (msg) {
			w.head = msg->next;
			if (!w.head)
				w.tail = &w.head;
			for (uint32_t i = 1; i <= w.n; i++) {
				if (w.m[i].in_group && w.m[i].hung)
					keep_for_later(&w.m[i], msg);
				else if (w.m[i].in_group)
					deliver(&w.m[i], msg);
			}
			message_free(msg);
		}
		for (uint32_t i = 1; i <= w.n; i++) {
			busy = busy || (w.m[i].n_serials && !w.m[i].disk_is_slow);
			disk_answers(&w.m[i]);
		}
	}
}

static void goes_on(struct member *m)
{
	m->hung = false;
	for (size_t i = 0; i < m->n_missed; i++) {
		deliver(m, m->missed[i]);
		disk_answers(m);
		message_free(m->missed[i]);
	}
	m->n_missed = 0;
	settle();
}

/* A new configuration of those that are in the group. */
static void regroup(void)
{
	uint32_t ids[NODES_MAX];
	size_t n = 0;

	w.view++;
	for (uint32_t i = 1; i <= w.n; i++)
		if (w.m[i].in_group)
			ids[n++] = i;
	for (uint32_t i = 1; i <= w.n; i++) {
		if (!w.m[i].in_group)
			continue;
		give(&w.m[i], (struct node_event){.type = NODE_EVENT_CONNECTED});
		give(&w.m[i], (struct node_event){.type = NODE_EVENT_VOTEQUORUM, .u.votequorum.known = true});
		give(&w.m[i], (struct node_event){.type = NODE_EVENT_RING, .u.ring = {.nodes = ids, .n = n}});
		give(&w.m[i], (struct node_event){.type = NODE_EVENT_VIEW, .u.view = {.id = w.view, .members = ids, .n_members = n}});
	}
	settle();
}

static void pass_time(uint64_t ms)
{
	for (uint64_t end = w.now_ms + ms; w.now_ms < end;) {
		w.now_ms += NODE_TICK_MS;
		for (uint32_t i = 1; i <= w.n; i++)
			if (!w.m[i].hung)
				give(&w.m[i], (struct node_event){.type = NODE_EVENT_TICK});
		settle();
	}
}

static void begin_with(struct member *m, struct clog_disk_state *disk, bool forgetful)
{
	struct node_options o = {.host = m->host, .act = act, .data = m, .audit_every = 10};

	m->node = node_new(&o);
	m->stopped = false;
	m->n_serials = 0;
	node_begin(m->node, m->id, disk, forgetful, w.now_ms);
	disk_answers(m);
}

static void begin(struct member *m, struct clog_disk_state *disk)
{
	begin_with(m, disk, false);
}

static void on_answer(void *data, const Gantry__CommandResult *result)
{
	w.answers++;
	w.status = result->status;
	snprintf(w.text, sizeof(w.text), "%s", result->text);
}

static void propose(struct member *m, Gantry__Command *c)
{
	give(m, (struct node_event){.type = NODE_EVENT_PROPOSE, .u.propose = {.command = c, .patient = true, .cb = on_answer}});
	gantry__command__free_unpacked(c, NULL);
	settle();
}

static Gantry__Command *command(Gantry__Command__BodyCase body)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);

	c->body_case = body;
	return c;
}

static void note(struct member *m, const char *text)
{
	Gantry__Command *c = command(GANTRY__COMMAND__BODY_EVENT_NOTE);

	c->event_note = PB_NEW(Gantry__CmdEventNote, gantry__cmd_event_note__init);
	pb_set_string(&c->event_note->subject, "cluster");
	pb_set_string(&c->event_note->kind, "note");
	pb_set_string(&c->event_note->text, text);
	propose(m, c);
}

static Gantry__Host *new_host(uint32_t id)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);
	char text[24];

	h->node_id = id;
	pb_set_string(&h->name, w.m[id].host);
	snprintf(text, sizeof(text), "192.0.2.%u", id);
	pb_set_string(&h->address, text);
	return h;
}

static void fence_set(uint32_t id)
{
	Gantry__Command *c = command(GANTRY__COMMAND__BODY_FENCE_SET);
	Gantry__FenceDevice *d = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);

	c->fence_set = PB_NEW(Gantry__CmdFenceSet, gantry__cmd_fence_set__init);
	pb_set_string(&c->fence_set->host, w.m[id].host);
	pb_set_string(&d->agent, "fence_x");
	d->level = 1;
	PB_APPEND(c->fence_set, devices, d);
	propose(&w.m[1], c);
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
}

static void make_cluster(uint32_t n)
{
	Gantry__Command *c = command(GANTRY__COMMAND__BODY_CLUSTER_INIT);

	memset(&w, 0, sizeof(w));
	w.tail = &w.head;
	w.n = n;
	w.now_ms = 1000;
	for (uint32_t i = 1; i <= n; i++) {
		w.m[i].id = i;
		snprintf(w.m[i].host, sizeof(w.m[i].host), "host%u", i);
	}
	w.m[1].in_group = true;
	begin(&w.m[1], &(struct clog_disk_state){0});
	regroup();
	c->cluster_init = PB_NEW(Gantry__CmdClusterInit, gantry__cmd_cluster_init__init);
	pb_set_string(&c->cluster_init->name, "x");
	pb_set_string(&c->cluster_init->uuid, "u");
	c->cluster_init->host = new_host(1);
	propose(&w.m[1], c);
	for (uint32_t i = 2; i <= n; i++) {
		c = command(GANTRY__COMMAND__BODY_HOST_ADMIT);
		c->host_admit = PB_NEW(Gantry__CmdHostAdmit, gantry__cmd_host_admit__init);
		c->host_admit->host = new_host(i);
		propose(&w.m[1], c);
		assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
		w.m[i].in_group = true;
		begin(&w.m[i], &(struct clog_disk_state){0});
	}
	regroup();
	pass_time(3000);
	assert_int_equal(node_model(w.m[1].node)->state->n_voters, n);
	for (uint32_t i = 1; i <= n; i++)
		fence_set(i);
}

static void end(void)
{
	for (uint32_t i = 1; i <= w.n; i++) {
		node_free(w.m[i].node);
		for (size_t k = 0; k < w.m[i].n_missed; k++)
			message_free(w.m[i].missed[k]);
	}
	while (w.head) {
		struct message *next = w.head->next;

		message_free(w.head);
		w.head = next;
	}
}

static void assert_state(uint32_t id, const char *part)
{
	struct buf text = {0};

	if (!strstr(node_state_text(w.m[id].node, &text), part))
		fail_msg("host%u is '%s', not '%s'", id, buf_str(&text), part);
	buf_free(&text);
}

/* ---- a state of its own ------------------------------------------------------------- */

static void corrupt(struct member *m)
{
	((Gantry__ClusterModel *)node_model(m->node)->state)->hosts[0]->cpus = 99;
}

static void test_state_that_differs_steps_out_and_the_others_go_on(void **state)
{
	make_cluster(3);
	give(&w.m[2], (struct node_event){.type = NODE_EVENT_AGENT, .u.agent.connected = true});
	pass_time(1000);
	assert_true(w.m[2].quorate > 0);
	corrupt(&w.m[2]);
	for (int i = 0; i < 12; i++)
		note(&w.m[1], "n");
	assert_true(w.m[2].stopped);
	assert_false(w.m[1].stopped || w.m[3].stopped);
	assert_state(2, "its state differs from that of the other hosts");
	/* Its agent is told nothing any more, least of all that there is no quorum: the domains go on. */
	w.m[2].quorate = w.m[2].not_quorate = w.m[2].goals = 0;
	pass_time(3000);
	assert_int_equal(w.m[2].quorate + w.m[2].not_quorate + w.m[2].goals, 0);
	w.m[2].in_group = false;
	regroup();
	note(&w.m[3], "after");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	note(&w.m[2], "no");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_UNAVAILABLE);
	end();
}

static void test_leader_whose_state_differs_steps_out(void **state)
{
	struct clog_status st;

	make_cluster(3);
	node_log_status(w.m[1].node, &st);
	assert_int_equal(st.leader, 1);
	corrupt(&w.m[1]);
	for (int i = 0; i < 12; i++)
		note(&w.m[1], "n");
	assert_true(w.m[1].stopped);
	assert_false(w.m[2].stopped || w.m[3].stopped);
	w.m[1].in_group = false;
	regroup();
	note(&w.m[2], "after");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	end();
}

static void test_two_that_differ_both_step_out(void **state)
{
	make_cluster(2);
	corrupt(&w.m[2]);
	for (int i = 0; i < 12; i++)
		note(&w.m[1], "n");
	assert_true(w.m[1].stopped && w.m[2].stopped);
	assert_state(1, "nobody has a majority");
	end();
}

static void test_difference_shows_at_the_next_sync(void **state)
{
	make_cluster(3);
	corrupt(&w.m[3]);
	regroup();
	assert_true(w.m[3].stopped);
	assert_false(w.m[1].stopped || w.m[2].stopped);
	end();
}

/* ---- what cannot go on ------------------------------------------------------------------ */

static void test_winner_that_hangs_after_its_statement_is_left_out(void **state)
{
	make_cluster(3);
	/* It still states where it is, and is not heard of again, although corosync goes on counting it in. */
	w.m[1].hung = true;
	regroup();
	pass_time(20000);
	assert_state(2, "taking over the log");
	pass_time(15000);
	w.answers = 0;
	note(&w.m[2], "goes on");
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	end();
}

static void test_lost_log_is_taken_over_from_a_winner_that_was_silent(void **state)
{
	make_cluster(3);
	node_free(w.m[3].node);
	begin_with(&w.m[3], &(struct clog_disk_state){0}, true);
	w.m[1].hung = w.m[2].disk_is_slow = true;
	regroup();
	/* It may state nothing, so it cannot ask the others for a new round either: it stays in theirs. */
	pass_time(10000);
	assert_state(3, "taking over the log");
	w.m[2].disk_is_slow = false;
	goes_on(&w.m[1]);
	pass_time(5000);
	assert_state(3, "normal");
	end();
}

static void test_full_disk_steps_out_and_says_so(void **state)
{
	make_cluster(3);
	w.m[3].disk_fails = true;
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	assert_true(w.m[3].stopped);
	assert_state(3, "its log cannot be written: no space left on device; mend the disk");
	note(&w.m[2], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	end();
}

static void test_newer_command_is_not_applied(void **state)
{
	struct clog_disk_state disk = {.promised_epoch = 1, .commit_index = 1};
	Gantry__Command *c = command(GANTRY__COMMAND__BODY_EVENT_NOTE);
	struct buf packed = {0};

	memset(&w, 0, sizeof(w));
	w.tail = &w.head;
	w.n = 1;
	w.m[1].id = 1;
	snprintf(w.m[1].host, sizeof(w.m[1].host), "host1");
	c->version = MODEL_COMMAND_VERSION + 1;
	c->event_note = PB_NEW(Gantry__CmdEventNote, gantry__cmd_event_note__init);
	pb_pack(c, &packed);
	gantry__command__free_unpacked(c, NULL);
	disk.entries = mem_alloc(sizeof(*disk.entries));
	disk.entries[0] = PB_NEW(Gantry__LogEntry, gantry__log_entry__init);
	disk.entries[0]->index = disk.entries[0]->epoch = 1;
	pb_set_bytes(&disk.entries[0]->command, packed.data, packed.len);
	disk.n_entries = 1;
	buf_free(&packed);
	begin(&w.m[1], &disk);
	assert_true(w.m[1].stopped);
	assert_state(1, "upgrade gantry on this host");
	assert_int_equal(node_model(w.m[1].node)->state->applied_index, 0);
	end();
}

/* ---- half of the voters --------------------------------------------------------------------- */

static void lose(uint32_t id)
{
	w.m[id].in_group = false;
	regroup();
}

static void fenced(uint32_t by, uint32_t target, int rc)
{
	give(&w.m[by], (struct node_event){.type = NODE_EVENT_FENCED, .u.fenced = {.host = w.m[target].host, .rc = rc, .text = "off"}});
	settle();
}

static void test_one_of_two_goes_on_once_the_other_is_proven_dead(void **state)
{
	make_cluster(2);
	lose(2);
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_NO_QUORUM);
	pass_time(200);
	assert_int_equal(w.m[1].fences, 1);
	assert_string_equal(w.m[1].fencing, "host2");
	fenced(1, 2, -5);
	pass_time(2000);
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_NO_QUORUM);
	pass_time(6000);
	assert_int_equal(w.m[1].fences, 2);
	fenced(1, 2, 0);
	pass_time(200);
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	assert_int_equal(node_model(w.m[1].node)->state->n_voters, 1);
	/* It comes back with an older log, and votes again. */
	w.m[2].in_group = true;
	regroup();
	pass_time(3000);
	assert_int_equal(node_model(w.m[1].node)->state->n_voters, 2);
	assert_int_equal(node_model(w.m[2].node)->state->applied_index, node_model(w.m[1].node)->state->applied_index);
	end();
}

static void test_higher_node_waits_for_the_lower_one_to_fence(void **state)
{
	make_cluster(2);
	lose(1);
	pass_time(4000);
	assert_int_equal(w.m[2].fences, 0);
	pass_time(4000);
	assert_int_equal(w.m[2].fences, 1);
	end();
}

static struct clog_disk_state disk_of_voters(void)
{
	struct clog_disk_state disk = {.promised_epoch = 1, .snapshot_index = 1, .snapshot_epoch = 1, .commit_index = 1, .n_voters = 2};

	disk.voters = mem_alloc(2 * sizeof(*disk.voters));
	disk.voters[0] = 1;
	disk.voters[1] = 2;
	return disk;
}

static void test_one_that_has_just_begun_waits_for_a_person(void **state)
{
	struct clog_disk_state disk = disk_of_voters();
	struct buf snapshot = {0};
	struct node_options o = {.host = "host1", .act = act, .data = &w.m[1]};
	Gantry__Command *c = command(GANTRY__COMMAND__BODY_FENCE_CONFIRM);

	make_cluster(2);
	model_snapshot(node_model(w.m[1].node), &snapshot);
	disk.snapshot_index = disk.commit_index = node_model(w.m[1].node)->state->applied_index;
	disk.snapshot_epoch = disk.promised_epoch = node_model(w.m[1].node)->state->applied_epoch;
	node_free(w.m[1].node);
	w.m[1].node = node_new(&o);
	w.m[1].fences = 0;
	assert_int_equal(node_install(w.m[1].node, snapshot.data, snapshot.len, NULL), 0);
	buf_free(&snapshot);
	node_begin(w.m[1].node, 1, &disk, false, w.now_ms);
	lose(2);
	pass_time(20000);
	assert_int_equal(w.m[1].fences, 0);
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_NO_QUORUM);
	c->fence_confirm = PB_NEW(Gantry__CmdFenceConfirm, gantry__cmd_fence_confirm__init);
	pb_set_string(&c->fence_confirm->host, "host2");
	propose(&w.m[1], c);
	pass_time(3000);
	note(&w.m[1], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	end();
}

static void test_two_of_four_need_the_quorum_device(void **state)
{
	struct node_event device = {.type = NODE_EVENT_VOTEQUORUM,
		.u.votequorum = {.known = true, .quorate = true, .device_configured = true, .device_votes = true}};

	make_cluster(4);
	w.m[4].in_group = false;
	lose(3);
	pass_time(10000);
	assert_int_equal(w.m[1].fences + w.m[2].fences, 0);
	give(&w.m[1], device);
	give(&w.m[2], device);
	pass_time(200);
	assert_int_equal(w.m[1].fences, 2);
	assert_int_equal(w.m[2].fences, 0);
	fenced(1, 3, 0);
	pass_time(200);
	note(&w.m[2], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_NO_QUORUM);
	fenced(1, 4, 0);
	pass_time(200);
	note(&w.m[2], "n");
	assert_int_equal(w.status, GANTRY__STATUS__STATUS_OK);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_that_differs_steps_out_and_the_others_go_on),
		cmocka_unit_test(test_leader_whose_state_differs_steps_out),
		cmocka_unit_test(test_two_that_differ_both_step_out),
		cmocka_unit_test(test_difference_shows_at_the_next_sync),
		cmocka_unit_test(test_winner_that_hangs_after_its_statement_is_left_out),
		cmocka_unit_test(test_lost_log_is_taken_over_from_a_winner_that_was_silent),
		cmocka_unit_test(test_full_disk_steps_out_and_says_so),
		cmocka_unit_test(test_newer_command_is_not_applied),
		cmocka_unit_test(test_one_of_two_goes_on_once_the_other_is_proven_dead),
		cmocka_unit_test(test_higher_node_waits_for_the_lower_one_to_fence),
		cmocka_unit_test(test_one_that_has_just_begun_waits_for_a_person),
		cmocka_unit_test(test_two_of_four_need_the_quorum_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
