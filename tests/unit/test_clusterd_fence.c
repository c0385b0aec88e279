/* clusterd's API: tests of fence devices, and what would happen if hosts died. The fence agent is a script whose power is a file. */
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "tests/unit/clusterd_api_fixture.h"
#include "tests/unit/temp_folder.h"

static char folder[64];

static const char agent[] =
	"#!/bin/sh\n"
	"D=${0%/*}\n"
	"while IFS='=' read -r k v; do case $k in action) A=$v;; mood) M=$v;; esac; done\n"
	"echo $A >>$D/calls\n"
	"[ $A$M != statusslow ] || sleep 0.3\n"
	"[ \"$M\" != deaf ] || { echo 'no route' >&2; exit 1; }\n"
	"case $A in off) [ \"$M\" = stuck ] || : >$D/is_off;; on) rm -f $D/is_off;; esac\n"
	"[ $A != off ] || [ \"$M\" != stuck ] || exit 1\n"
	"[ $A = status ] && [ -e $D/is_off ] && exit 2\n"
	"exit 0\n";

static Gantry__Host *add_host(uint32_t node_id, const char *name)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);

	h->node_id = node_id;
	pb_set_string(&h->name, name);
	h->state = GANTRY__HOST_STATE__HOST_STATE_ONLINE;
	PB_APPEND(w.model.state, hosts, h);
	return h;
}

static void add_device(Gantry__Host *h, const char *name, const char *mood)
{
	Gantry__FenceDevice *d = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
	Gantry__FenceParam *p = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);

	pb_set_string(&d->agent, name);
	d->level = (uint32_t)h->n_fence + 1;
	d->timeout_s = 5;
	pb_set_string(&p->key, "mood");
	pb_set_string(&p->value, mood);
	PB_APPEND(d, params, p);
	PB_APPEND(h, fence, d);
}

static int set_up_fence(void **state)
{
	_cleanup_free_ char *path = NULL, *script = NULL;
	FILE *f;

	set_up(state);
	temp_folder_make(folder, sizeof(folder));
	script = str_printf("%s/fence_test", folder);
	path = str_printf("%s:%s", folder, getenv("PATH"));
	setenv("PATH", path, 1);
	f = fopen(script, "w");
	assert_non_null(f);
	fputs(agent, f);
	fclose(f);
	return chmod(script, 0755);
}

static int tear_down_fence(void **state)
{
	tear_down(state);
	temp_folder_remove(folder);
	return 0;
}

static void assert_calls(const char *expected)
{
	_cleanup_free_ char *path = str_printf("%s/calls", folder);
	char text[256] = "";
	FILE *f = fopen(path, "r");

	if (f) {
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		fclose(f);
	}
	assert_string_equal(text, expected);
}

static void ask(struct client *c, const char *host, bool really)
{
	Gantry__CtlFenceTest request = GANTRY__CTL_FENCE_TEST__INIT;

	request.host = (char *)host;
	request.really = really;
	ASK(c, 9, FENCE_TEST, fence_test, &request);
}

/* "AGENT/LEVEL ACTION ok: TEXT", or "end ok". */
static void expect_step(struct client *c, const char *start)
{
	const Gantry__CtlMessage *a = answer(c);
	const Gantry__CtlFenceTested *t = a->fence_tested;
	_cleanup_free_ char *got = NULL;

	if (a->body_case == GANTRY__CTL_MESSAGE__BODY_ERROR)
		fail_msg("%s", a->error->text);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_FENCE_TESTED);
	got = t->ended ? str_printf("end %s", t->ok ? "ok" : "failed") :
			 str_printf("%s/%u %s %s: %s", t->agent, t->level, t->action, t->ok ? "ok" : "failed", t->text);
	if (strncmp(got, start, strlen(start)) != 0)
		fail_msg("'%s' does not begin with '%s'", got, start);
}

static size_t count_notes(const char *part)
{
	size_t n = 0;

	for (size_t i = 0; i < w.model.state->n_events; i++)
		n += !strcmp(w.model.state->events[i]->kind, "fence-test") && strstr(w.model.state->events[i]->text, part);
	return n;
}

static void test_each_device_is_asked(void **state)
{
	Gantry__Host *h = add_host(2, "hostB");
	struct client c;

	add_device(h, "fence_test", "");
	add_device(h, "fence_test", "deaf");
	add_device(h, "watchdog", "");
	open_unix(&c);
	ask(&c, "hostB", false);
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "fence_test/2 status failed: nobody can tell whether hostB is on: fence_test (level 2): 'status' failed with status 1: no route");
	expect_step(&c, "watchdog/3 status failed: its agent reports no watchdog");
	expect_step(&c, "end failed");
	assert_calls("status\nstatus\n");
	pb_set_string(&h->watchdog, "/dev/watchdog");
	PB_REMOVE(h, fence, 1);
	ask(&c, "hostB", false);
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "watchdog/3 status ok: its agent feeds /dev/watchdog");
	expect_step(&c, "end ok");
	assert_int_equal(count_notes(""), 0);
	drop_client(&c);
}

static void test_really_switches_off_and_on_again(void **state)
{
	Gantry__Host *h = add_host(2, "hostB");
	struct client c;

	add_device(h, "fence_test", "");
	open_unix(&c);
	ask(&c, "hostB", true);
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "fence_test/1 off ok: fence_test at level 1: off, status off, ");
	/* It is switched on when the cluster has dealt with its death, not before. */
	note(&c, 10, "still there");
	assert_int_equal(answer(&c)->id, 10);
	assert_calls("status\noff\nstatus\n");
	h->state = GANTRY__HOST_STATE__HOST_STATE_DEAD;
	expect_step(&c, "fence_test/1 seen ok: the cluster holds it for dead");
	expect_step(&c, "fence_test/1 on ok: fence_test at level 1: on, status on, ");
	expect_step(&c, "end ok");
	assert_calls("status\noff\nstatus\non\nstatus\n");
	assert_int_equal(count_notes("is switched off"), 1);
	assert_int_equal(count_notes("it switched the host off and on again"), 1);
	drop_client(&c);
}

static void test_a_device_that_does_not_switch_is_told_and_switched_on(void **state)
{
	Gantry__Host *h = add_host(2, "hostB");
	struct client c;

	add_device(h, "fence_test", "stuck");
	add_device(h, "fence_test", "");
	h->state = GANTRY__HOST_STATE__HOST_STATE_DEAD;
	open_unix(&c);
	ask(&c, "hostB", true);
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "fence_test/1 off failed: hostB is not proven off: fence_test (level 1): 'off' failed with status 1");
	expect_step(&c, "fence_test/1 on ok: ");
	expect_step(&c, "fence_test/2 status ok: on");
	expect_step(&c, "fence_test/2 off ok: ");
	expect_step(&c, "fence_test/2 seen ok: ");
	expect_step(&c, "fence_test/2 on ok: ");
	expect_step(&c, "end failed");
	assert_int_equal(count_notes("level 1, asked for on hostA: failed"), 1);
	assert_int_equal(count_notes("level 2, asked for on hostA: it switched"), 1);
	drop_client(&c);
}

static void test_a_host_that_is_off_already_stays_off(void **state)
{
	_cleanup_free_ char *path = str_printf("%s/is_off", folder);
	struct client c;

	add_device(add_host(2, "hostB"), "fence_test", "");
	fclose(fopen(path, "w"));
	open_unix(&c);
	ask(&c, "hostB", true);
	expect_step(&c, "fence_test/1 status failed: off already");
	expect_step(&c, "end failed");
	assert_calls("status\n");
	drop_client(&c);
}

static void add_domain(const char *name, const char *host)
{
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);

	d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	pb_set_string(&d->spec->name, name);
	pb_set_string(&d->host, host);
	PB_APPEND(w.model.state, domains, d);
}

static void test_what_is_refused(void **state)
{
	Gantry__Host *a = w.model.state->hosts[0], *b = add_host(2, "hostB"), *d = add_host(4, "hostD"), *e = add_host(5, "hostE");
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	struct client c;

	add_host(3, "hostC");
	add_device(a, "fence_test", "");
	add_device(b, "fence_test", "");
	add_device(d, "fence_test", "");
	add_device(e, "fence_test", "");
	add_domain("web1", "hostB");
	add_domain("web2", "hostB");
	job->kind = GANTRY__JOB_KIND__JOB_KIND_MIGRATE;
	pb_set_string(&job->destination, "hostD");
	pb_set_string(&job->domain_name, "db1");
	PB_APPEND(w.model.state, jobs, job);
	e->leftovers = 2;
	open_unix(&c);
	ask(&c, "hostZ", false);
	EXPECT_ERROR(&c, NO_SUCH, "no host 'hostZ'");
	ask(&c, "hostC", false);
	EXPECT_ERROR(&c, CONSTRAINT, "host 'hostC' has no fence device");
	ask(&c, "hostA", true);
	EXPECT_ERROR(&c, CONSTRAINT, "ask another host");
	ask(&c, "hostB", true);
	EXPECT_ERROR(&c, CONSTRAINT, "while it runs domains: web1, web2; move them away");
	ask(&c, "hostD", true);
	EXPECT_ERROR(&c, CONSTRAINT, "db1 (on its way there)");
	ask(&c, "hostE", true);
	EXPECT_ERROR(&c, CONSTRAINT, "2 QEMUs that the cluster does not know");
	w.no_quorum = true;
	ask(&c, "hostB", true);
	EXPECT_ERROR(&c, NO_QUORUM, "not in the quorum");
	w.no_quorum = false;
	assert_calls("");
	/* Only asking is allowed all the same, of one's own host too; once at a time. */
	ask(&c, "hostA", false);
	ask(&c, "hostA", false);
	EXPECT_ERROR(&c, RETRY, "under way");
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "end ok");
	drop_client(&c);
}

static bool was_called(void)
{
	_cleanup_free_ char *path = str_printf("%s/calls", folder);

	return access(path, F_OK) == 0;
}

static void test_what_came_meanwhile_is_not_switched_off(void **state)
{
	struct client c;

	add_device(add_host(2, "hostB"), "fence_test", "slow");
	open_unix(&c);
	ask(&c, "hostB", true);
	/* It was let begin, and has not got to switching yet. */
	UNTIL(was_called());
	add_domain("late", "hostB");
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "fence_test/1 off failed: not done: it has got domains meanwhile: late");
	expect_step(&c, "end failed");
	assert_calls("status\n");
	drop_client(&c);
}

static bool is_off(void)
{
	_cleanup_free_ char *path = str_printf("%s/is_off", folder);

	return access(path, F_OK) == 0;
}

static void test_a_client_that_leaves_does_not_leave_the_host_off(void **state)
{
	Gantry__Host *h = add_host(2, "hostB");
	struct client c;

	add_device(h, "fence_test", "");
	add_device(h, "fence_test", "");
	h->state = GANTRY__HOST_STATE__HOST_STATE_DEAD;
	open_unix(&c);
	ask(&c, "hostB", true);
	expect_step(&c, "fence_test/1 status ok: on");
	expect_step(&c, "fence_test/1 off ok: ");
	assert_true(is_off());
	drop_client(&c);
	UNTIL(count_notes("off and on again") == 1);
	assert_false(is_off());
	/* The second device is not begun. */
	for (int i = 0; i < 30; i++) {
		uv_run(&w.loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	assert_calls("status\noff\nstatus\non\nstatus\n");
}

/* tear_down() sees that nothing is left behind. */
static void test_the_daemon_may_end_meanwhile(void **state)
{
	struct client c;

	add_device(add_host(2, "hostB"), "fence_test", "");
	open_unix(&c);
	ask(&c, "hostB", true);
	expect_step(&c, "fence_test/1 status ok: on");
	drop_client(&c);
}

static void test_what_if(void **state)
{
	char *names[] = {(char *)"hostA", (char *)"hostB"};
	Gantry__CtlWhatIf request = GANTRY__CTL_WHAT_IF__INIT;
	Gantry__CtlMessage *a;
	struct client c;

	open_unix(&c);
	request.failed = names;
	request.n_failed = 2;
	ASK(&c, 3, WHAT_IF, what_if, &request);
	a = answer(&c);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_PLAN);
	assert_int_equal(a->id, 3);
	assert_string_equal(a->plan->quorum_text, "2 failed, the last is hostB");
	request.n_failed = 0;
	ASK(&c, 4, WHAT_IF, what_if, &request);
	EXPECT_ERROR(&c, USAGE, "whose death?");
	w.no_quorum = true;
	ASK(&c, 5, WHAT_IF, what_if, &request);
	EXPECT_ERROR(&c, NO_QUORUM, "hostA");
	drop_client(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up_fence, tear_down_fence)
		T(test_each_device_is_asked), T(test_really_switches_off_and_on_again),
		T(test_a_device_that_does_not_switch_is_told_and_switched_on), T(test_a_host_that_is_off_already_stays_off),
		T(test_what_is_refused), T(test_what_came_meanwhile_is_not_switched_off),
		T(test_a_client_that_leaves_does_not_leave_the_host_off), T(test_the_daemon_may_end_meanwhile), T(test_what_if),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
