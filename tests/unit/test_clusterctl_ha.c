/* What users set and see of HA: policies from options, the leader's plan in numbers, what verify finds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterctl/cluster_verify.h"
#include "clusterctl/ha_policy.h"
#include "clusterctl/plan_view.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"

/* ---- policies */

/* The policy's text after `ha set db1` with these options, or the error's; p is what it was, and becomes. */
static char *change(Gantry__HaPolicy *p, bool *ret_changed, char *const *options)
{
	char *argv[16] = {(char *)"ha", (char *)"set", (char *)"db1"};
	struct invocation inv = {0};
	struct err err = {0};
	int argc = 3;

	for (; options[argc - 3]; argc++)
		argv[argc] = options[argc - 3];
	if (command_parse(argc, argv, &inv, &err) < 0)
		fail_msg("%s", err.text);
	*ret_changed = false;
	int rc = ha_policy_change(&inv, p, ret_changed, &err);
	invocation_clear(&inv);
	if (rc < 0)
		assert_int_equal(err.status, GANTRY__STATUS__STATUS_USAGE);
	return rc < 0 ? str_printf("error: %s", err.text) : ha_policy_text(p);
}

#define DEFAULTS "priority 100, order 0, ready by running, 3 restarts on one host, stopped on a host without quorum"

static void test_policy_options(void **state)
{
	static char *const rows[][8] = {
		{NULL, NULL, NULL, NULL, NULL, NULL, NULL, DEFAULTS},
		{"--priority", "255", "--order", "2", "--restarts=1", "--delay", "2m", "priority 255, order 2, ready by running, then 120 s until the next "
		 "order, 1 restart on one host, stopped on a host without quorum"},
		{"--ready", "agent", "--hung", "15", NULL, NULL, NULL, "priority 100, order 0, ready by agent (waited for 120 s), 3 restarts on one host, "
		 "stopped on a host without quorum, hung after 15 s"},
		{"--ready", "port:10.0.0.5:80", "--ready-time", "1h", NULL, NULL, NULL, "priority 100, order 0, ready by port 10.0.0.5:80 (waited for 3600 s), "
		 "3 restarts on one host, stopped on a host without quorum"},
		{"--ready", "port:[fd00::5]:80", NULL, NULL, NULL, NULL, NULL, "priority 100, order 0, ready by port [fd00::5]:80 (waited for 120 s), "
		 "3 restarts on one host, stopped on a host without quorum"},
		{"--ready", "time", "--ready-time", "30", "--isolation", "leave", "--gives-way=yes", "priority 100, order 0, ready by time 30 s, "
		 "3 restarts on one host, left running on a host without quorum, gives way"},
		{"--priority", "256", NULL, NULL, NULL, NULL, NULL, "error: --priority '256' has to be a number from 0 to 255"},
		{"--order", "-1", NULL, NULL, NULL, NULL, NULL, "error: --order '-1' has to be a number from 0 to 1000"},
		{"--delay", "2w", NULL, NULL, NULL, NULL, NULL, "error: --delay '2w' has to be a time such as 90s, 30m or 2h, from 0 ms to 1 d 0 h"},
		{"--hung", "14", NULL, NULL, NULL, NULL, NULL, "error: --hung '14 s' has to be 0 (never), or at least 15 s: the guest agent is asked every 5 s"},
		{"--ready", "soon", NULL, NULL, NULL, NULL, NULL, "error: --ready 'soon' has to be running, agent, time or port:ADDRESS:PORT"},
		{"--ready", "port:80", NULL, NULL, NULL, NULL, NULL, "error: --ready 'port:80' has to be port:ADDRESS:PORT, such as port:10.0.0.5:80"},
		{"--ready", "port:db1:80", NULL, NULL, NULL, NULL, NULL, "error: --ready 'port:db1:80': 'db1' is not the guest's IP address (IPv6 in brackets)"},
		{"--ready", "port:fd00::5:80", NULL, NULL, NULL, NULL, NULL, "error: --ready 'port:fd00::5:80': 'fd00::5' is not the guest's IP address (IPv6 in brackets)"},
		{"--ready", "port:10.0.0.5:0", NULL, NULL, NULL, NULL, NULL, "error: --ready: the port '0' has to be a number from 1 to 65535"},
		{"--isolation", "go", NULL, NULL, NULL, NULL, NULL, "error: --isolation 'go' has to be 'stop' or 'leave'"},
		{"--gives-way", "maybe", NULL, NULL, NULL, NULL, NULL, "error: --gives-way 'maybe' has to be 'no' or 'yes'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__Domain d = GANTRY__DOMAIN__INIT;
		Gantry__HaPolicy *p = ha_policy_of(&d);
		char *options[8] = {0};
		bool changed;

		memcpy(options, rows[i], 7 * sizeof(char *));
		_cleanup_free_ char *got = change(p, &changed, options);
		assert_string_equal(got, rows[i][7]);
		if (strncmp(got, "error", 5) != 0)
			assert_int_equal(changed, options[0] != NULL);
		gantry__ha_policy__free_unpacked(p, NULL);
	}
}

/* Only what is named changes, and the port goes with the readiness by it. */
static void test_the_rest_of_a_policy_stays(void **state)
{
	Gantry__HaPolicy own = GANTRY__HA_POLICY__INIT;
	Gantry__Domain d = GANTRY__DOMAIN__INIT;
	bool changed;

	own.priority = 7;
	own.order = 3;
	own.hung_s = 60;
	own.isolation = GANTRY__ISOLATION__ISOLATION_LEAVE;
	own.gives_way = true;
	own.ready_by = GANTRY__READY_BY__READY_BY_PORT;
	own.ready_address = (char *)"10.0.0.5";
	own.ready_port = 80;
	d.policy = &own;
	Gantry__HaPolicy *p = ha_policy_of(&d);
	_cleanup_free_ char *one = change(p, &changed, (char *const[]){"--order", "0", NULL});
	assert_int_equal(p->priority, 7);
	assert_int_equal(p->order, 0);
	assert_int_equal(p->hung_s, 60);
	assert_int_equal(p->isolation, GANTRY__ISOLATION__ISOLATION_LEAVE);
	assert_true(p->gives_way);
	assert_int_equal(p->ready_port, 80);
	_cleanup_free_ char *two = change(p, &changed, (char *const[]){"--ready", "running", "--gives-way", "no", "--isolation", "stop", NULL});
	assert_string_equal(p->ready_address, "");
	assert_int_equal(p->ready_port, 0);
	assert_false(p->gives_way);
	assert_int_equal(p->isolation, GANTRY__ISOLATION__ISOLATION_STOP);
	gantry__ha_policy__free_unpacked(p, NULL);
}

static void test_seconds(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t want;
	} rows[] = {
		{"0", true, 0}, {"90", true, 90}, {"90s", true, 90}, {"30m", true, 1800}, {"2h", true, 7200}, {"1d", true, 86400},
		{"2d", false, 0}, {"", false, 0}, {"m", false, 0}, {"1.5h", false, 0}, {"30min", false, 0}, {"30 m", false, 0}, {"-1", false, 0},
		{"99999999999999999999", false, 0}, {"18446744073709551615d", false, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t got = 7;
		struct err err = {0};
		int rc = units_parse_seconds("--for", rows[i].text, 0, 86400, &got, &err);
		assert_int_equal(rc, rows[i].ok ? 0 : -EINVAL);
		assert_int_equal(got, rows[i].ok ? rows[i].want : 7);
		if (rc < 0)
			assert_non_null(strstr(err.text, "--for"));
	}
}

/* ---- a cluster: three healthy hosts with fence devices, a shared pool, two domains */

struct world {
	Gantry__CtlModel *m;
	Gantry__CtlStatus *status;
	Gantry__CtlPlan *plans[3];
};

static Gantry__Host *add_host(struct world *w, uint32_t id, const char *name)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);
	Gantry__FenceDevice *d = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
	Gantry__MemberInfo *member = PB_NEW(Gantry__MemberInfo, gantry__member_info__init);
	Gantry__HostSoft *soft = PB_NEW(Gantry__HostSoft, gantry__host_soft__init);
	Gantry__PoolReport *report = PB_NEW(Gantry__PoolReport, gantry__pool_report__init);

	h->node_id = member->node_id = soft->node_id = id;
	pb_set_string(&h->name, name);
	h->state = GANTRY__HOST_STATE__HOST_STATE_ONLINE;
	h->agent_connected = true;
	pb_set_string(&h->qemu_version, "7.2.0");
	pb_set_string(&h->accel, "kvm");
	pb_set_string(&d->agent, "fence_ipmilan");
	PB_APPEND(h, fence, d);
	PB_APPEND(w->m->model, hosts, h);
	pb_u32_append(&w->m->model->voters, &w->m->model->n_voters, id);
	pb_set_string(&member->name, name);
	member->member = member->synced = member->voter = true;
	PB_APPEND(w->status, members, member);
	pb_set_string(&soft->version, "1.0");
	pb_set_string(&report->name, "vms");
	report->ok = report->checked = true;
	report->capacity_bytes = 1 << 30;
	PB_APPEND(soft, pools, report);
	PB_APPEND(w->m, soft, soft);
	if (w->plans[id - 1])
		gantry__ctl_plan__free_unpacked(w->plans[id - 1], NULL);
	w->plans[id - 1] = PB_NEW(Gantry__CtlPlan, gantry__ctl_plan__init);
	w->plans[id - 1]->quorate = true;
	pb_set_string(&w->plans[id - 1]->quorum_text, "2 of 3 voters are left");
	return h;
}

static Gantry__Domain *add_domain(struct world *w, const char *name, bool ha)
{
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);
	Gantry__Disk *disk = PB_NEW(Gantry__Disk, gantry__disk__init);

	d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	pb_set_string(&d->spec->name, name);
	pb_set_string(&disk->vdev, "xvda");
	pb_set_string(&disk->pool, "vms");
	pb_set_string(&disk->volume, name);
	PB_APPEND(d->spec, disks, disk);
	pb_set_string(&d->host, "hostA");
	d->state = GANTRY__DOMAIN_STATE__DOMAIN_STATE_RUNNING;
	d->ha = ha;
	PB_APPEND(w->m->model, domains, d);
	return d;
}

static int set_up(void **state)
{
	struct world *w = mem_alloc(sizeof(*w));
	Gantry__Pool *pool = PB_NEW(Gantry__Pool, gantry__pool__init);

	w->m = PB_NEW(Gantry__CtlModel, gantry__ctl_model__init);
	w->m->model = PB_NEW(Gantry__ClusterModel, gantry__cluster_model__init);
	w->status = PB_NEW(Gantry__CtlStatus, gantry__ctl_status__init);
	w->status->quorate = w->m->quorate = true;
	pb_set_string(&w->m->model->cluster_name, "demo");
	add_host(w, 1, "hostA");
	add_host(w, 2, "hostB");
	add_host(w, 3, "hostC");
	pb_set_string(&pool->name, "vms");
	pb_set_string(&pool->target, "nfs://10.0.0.9/vms");
	pool->shared = true;
	PB_APPEND(w->m->model, pools, pool);
	add_domain(w, "web1", true);
	add_domain(w, "lab1", false);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	gantry__ctl_model__free_unpacked(w->m, NULL);
	gantry__ctl_status__free_unpacked(w->status, NULL);
	for (size_t i = 0; i < 3; i++)
		gantry__ctl_plan__free_unpacked(w->plans[i], NULL);
	free(w);
	return 0;
}

static Gantry__PlanMove *add_move(Gantry__CtlPlan *plan, const char *domain, const char *to, const char *reason)
{
	Gantry__PlanMove *move = PB_NEW(Gantry__PlanMove, gantry__plan_move__init);

	pb_set_string(&move->domain, domain);
	pb_set_string(&move->from, "hostA");
	pb_set_string(&move->to, to);
	pb_set_string(&move->reason, reason);
	PB_APPEND(plan, moves, move);
	return move;
}

static void test_plan_in_numbers(void **state)
{
	static const char *const one[] = {"hostA"}, *const two[] = {"hostA", "hostB"};
	struct world *w = *state;
	Gantry__CtlPlan *plan = w->plans[0];

	add_domain(w, "db1", true);
	add_move(plan, "web1", "hostB", "most memory free");
	add_move(plan, "db1", "", "hostB: 512 MiB short");
	add_move(plan, "lab1", "", "");
	struct plan_sum sum = plan_count(w->m, plan);
	assert_int_equal(sum.starts, 1);
	assert_int_equal(sum.no_room, 1);
	assert_int_equal(sum.down, 1);
	assert_true(plan_goes_on(w->m, plan, one, 1));
	plan->quorate = false;
	assert_false(plan_goes_on(w->m, plan, two, 2));
	/* Half of four go on once the others are proven dead. */
	add_host(w, 3, "hostD")->node_id = 4;
	w->m->model->voters[3] = 4;
	assert_true(plan_goes_on(w->m, plan, two, 2));
	w->m->model->hosts[2]->state = GANTRY__HOST_STATE__HOST_STATE_DEAD;
	assert_false(plan_goes_on(w->m, plan, two, 2));
	json_t *json = plan_json(w->m, plan, two, 2);
	assert_int_equal(json_integer_value(json_object_get(json, "no_room")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(json, "failed"), 0)), "hostA");
	assert_true(json_is_false(json_object_get(json, "goes_on")));
	json_decref(json);
}

/* ---- verify */

/* What is found, a line each: "error KIND SUBJECT: TEXT". */
static void expect(struct world *w, const char *want)
{
	struct verify_input in = {.m = w->m, .status = w->status, .plans = w->plans};
	struct findings found = {0};
	struct buf got = {0};

	cluster_verify(&in, &found);
	for (size_t i = 0; i < found.n; i++) {
		assert_true(strlen(found.list[i].remedy) > 5);
		buf_printf(&got, "%s %s %s: %s\n", found.list[i].severity == GANTRY__EVENT_SEVERITY__EVENT_ERROR ? "error" : "warning",
			   found.list[i].kind, found.list[i].subject, found.list[i].text);
	}
	assert_string_equal(buf_str(&got), want);
	findings_free(&found);
	buf_free(&got);
}

static void test_nothing_is_wrong(void **state)
{
	expect(*state, "");
}

static void test_hosts(void **state)
{
	struct world *w = *state;
	Gantry__Host **h = w->m->model->hosts;

	h[0]->agent_connected = false;
	h[0]->leftovers = 2;
	h[1]->state = GANTRY__HOST_STATE__HOST_STATE_LOST;
	pb_set_string(&h[1]->state_reason, "it left the membership");
	h[1]->unguarded = true;
	h[2]->state = GANTRY__HOST_STATE__HOST_STATE_JOINING;
	expect(w, "error agent-not-connected host hostA: its agent is not connected: its domains go on, and it gets no new ones\n"
		  "warning leftovers host hostA: 2 QEMUs run there that the cluster knows nothing of: it gets no new domains\n"
		  "error host-not-online host hostB: lost: it left the membership\n"
		  "warning host-unguarded host hostB: it was lost while HA was disarmed, so that its watchdog proves nothing\n"
		  "warning host-not-seen host hostC: it was added and has never come online\n");
}

static void test_what_can_be_fenced(void **state)
{
	struct world *w = *state;
	Gantry__Host **h = w->m->model->hosts;

	PB_REMOVE(h[0], fence, 0);
	pb_set_string(&h[1]->fence[0]->agent, "watchdog");
	pb_set_string(&h[2]->fence[0]->agent, "watchdog");
	pb_set_string(&h[2]->watchdog, "/dev/watchdog");
	expect(w, "error no-fence-device host hostA: nothing can prove it dead: when it is lost, its domains stay down until somebody confirms that it "
		  "is off\n"
		  "error no-watchdog host hostB: nothing can prove it dead: its only fence device is a watchdog, and its agent reports none\n");
	PB_APPEND(h[1], fence, (Gantry__FenceDevice *)pb_clone(h[2]->fence[0]));
	pb_set_string(&h[1]->fence[0]->agent, "fence_apc");
	/* Alone there is nobody who would fence, or take over. */
	PB_APPEND(h[0], fence, (Gantry__FenceDevice *)pb_clone(h[1]->fence[0]));
	expect(w, "warning no-watchdog host hostB: a watchdog is one of its fence devices, and its agent reports none: that level fails\n");
	PB_REMOVE(w->m->model, hosts, 2);
	PB_REMOVE(w->m->model, hosts, 1);
	PB_REMOVE(h[0], fence, 0);
	expect(w, "");
}

static void test_pools(void **state)
{
	struct world *w = *state;
	Gantry__HostSoft **soft = w->m->soft;

	soft[0]->pools[0]->ok = false;
	pb_set_string(&soft[0]->pools[0]->reason, "no answer for 30 s");
	pb_string_append(&w->m->model->hosts[1]->lost_pools, &w->m->model->hosts[1]->n_lost_pools, "vms");
	soft[2]->pools[0]->capacity_bytes = 5;
	expect(w, "error pool-lost host hostA: it cannot use pool 'vms': no answer for 30 s\n"
		  "error pool-lost host hostB: it cannot use pool 'vms'\n"
		  "warning pool-differs pool vms: hostB and hostC see different sizes of it: is it the same store on both?\n");
	/* One that has not looked yet says nothing. */
	soft[0]->pools[0]->checked = false;
	w->m->model->hosts[1]->n_lost_pools = 0;
	free(w->m->model->hosts[1]->lost_pools[0]);
	soft[2]->pools[0]->ok = false;
	soft[2]->pools[0]->checked = false;
	expect(w, "");
}

static void test_domains(void **state)
{
	struct world *w = *state;
	Gantry__Domain *bad = add_domain(w, "bad1", true), *d;
	Gantry__Pool *own = PB_NEW(Gantry__Pool, gantry__pool__init);

	bad->quarantined = true;
	pb_string_append(&bad->deaths, &bad->n_deaths, "hostA");
	pb_string_append(&bad->deaths, &bad->n_deaths, "hostB");
	add_domain(w, "f", false)->state = GANTRY__DOMAIN_STATE__DOMAIN_STATE_FAILED;
	d = add_domain(w, "w", true);
	d->state = GANTRY__DOMAIN_STATE__DOMAIN_STATE_WAITING;
	pb_set_string(&d->reason, "hostA: 1 GiB short");
	d = add_domain(w, "c", true);
	d->state = GANTRY__DOMAIN_STATE__DOMAIN_STATE_CRASHED;
	pb_set_string(&d->reason, "the guest panicked");
	pb_set_string(&own->name, "local");
	PB_APPEND(w->m->model, pools, own);
	pb_set_string(&add_domain(w, "l", true)->spec->disks[0]->pool, "local");
	/* Not HA: it need not be anywhere else. */
	pb_set_string(&add_domain(w, "n", false)->spec->disks[0]->pool, "local");
	d = add_domain(w, "i", true);
	d->policy = PB_NEW(Gantry__HaPolicy, gantry__ha_policy__init);
	d->policy->isolation = GANTRY__ISOLATION__ISOLATION_LEAVE;
	pb_set_string(&d->spec->disks[0]->pool, NULL);
	expect(w, "error quarantined domain bad1: quarantined: 2 hosts in a row died soon after it began to run there\n"
		  "error failed domain f: failed: no reason is known\n"
		  "error waiting domain w: waits: hostA: 1 GiB short\n"
		  "error crashed domain c: crashed: the guest panicked\n"
		  "warning one-host-only domain l: its disk xvda is in pool 'local', of which each host has its own: it cannot be started elsewhere\n"
		  "error leave-without-lease domain i: it is left running on a host without quorum, but no lease guards its disk xvda\n");
	d->spec->disks[0]->readonly = true;
	bad->quarantined = false;
	while (w->m->model->n_domains > 8)
		PB_REMOVE(w->m->model, domains, 8);
	while (w->m->model->n_domains > 2)
		PB_REMOVE(w->m->model, domains, 2);
	expect(w, "");
}

static void test_the_cluster(void **state)
{
	struct world *w = *state;

	w->status->quorate = false;
	pb_set_string(&w->status->log_state, "1 of 3 voters is here");
	w->status->members[1]->synced = false;
	w->status->members[2]->voter = false;
	w->m->model->ha = PB_NEW(Gantry__HaState, gantry__ha_state__init);
	w->m->model->ha->disarmed = true;
	pb_set_string(&w->m->model->ha->reason, "by root on hostA");
	pb_set_string(&w->m->model->hosts[2]->qemu_version, "10.0.2");
	pb_set_string(&w->m->model->hosts[0]->accel, "tcg");
	pb_set_string(&w->m->soft[1]->version, "1.1");
	expect(w, "error no-quorum cluster demo: no quorum: 1 of 3 voters is here\n"
		  "warning not-in-step host hostB: it is a member, but its log is not in step\n"
		  "warning not-in-step host hostC: it has no vote (yet)\n"
		  "warning disarmed cluster demo: HA is disarmed: by root on hostA\n"
		  "warning differ cluster demo: different versions of clusterd: hostA 1.0, hostB 1.1, hostC 1.0\n"
		  "warning differ cluster demo: different versions of QEMU: hostA 7.2.0, hostB 7.2.0, hostC 10.0.2\n"
		  "warning differ cluster demo: different accelerations: hostA tcg, hostB kvm, hostC kvm\n");
}

static void test_a_brake_that_is_always_on(void **state)
{
	struct world *w = *state;

	w->m->model->ha = PB_NEW(Gantry__HaState, gantry__ha_state__init);
	w->m->model->ha->fence_share_percent = 49;
	expect(w, "error fence-share cluster demo: no lost host is fenced, not even a single one: it is more than 49 % of the 2 others\n");
	w->m->model->ha->fence_share_percent = 50;
	expect(w, "");
	/* Of two hosts the brake does not speak. */
	w->m->model->ha->fence_share_percent = 1;
	w->m->model->hosts[2]->state = GANTRY__HOST_STATE__HOST_STATE_JOINING;
	expect(w, "warning host-not-seen host hostC: it was added and has never come online\n");
}

static void test_one_more_failure(void **state)
{
	struct world *w = *state;

	add_domain(w, "db1", true);
	add_move(w->plans[0], "web1", "hostB", "");
	add_move(w->plans[0], "db1", "", "hostB: 512 MiB short");
	add_move(w->plans[0], "lab1", "", "");
	w->plans[1]->quorate = w->plans[2]->quorate = false;
	pb_set_string(&w->plans[1]->quorum_text, "1 of 2 voters are left");
	pb_set_string(&w->plans[2]->quorum_text, "1 of 2 voters are left");
	expect(w, "warning no-room host hostA: if it failed now, 1 HA domain would find no room: db1 (hostB: 512 MiB short)\n"
		  "warning quorum-margin cluster demo: the quorum has no margin: if one of these failed (hostB, hostC), 1 of 2 voters are left\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		cmocka_unit_test(test_policy_options), cmocka_unit_test(test_the_rest_of_a_policy_stays), cmocka_unit_test(test_seconds),
		T(test_plan_in_numbers), T(test_nothing_is_wrong), T(test_hosts), T(test_what_can_be_fenced), T(test_pools), T(test_domains),
		T(test_the_cluster), T(test_a_brake_that_is_always_on), T(test_one_more_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
