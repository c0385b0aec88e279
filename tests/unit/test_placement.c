/* Placement, case by case: one domain, three hosts, which one and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clusterd/core/manager.h"
#include "tests/unit/model_fixture.h"

#define GIB (1024ull << 20)

struct host_case {
	uint64_t memory_bytes, used_bytes;
	uint32_t cpus, domains;
	Gantry__HostState state;
	bool agent_away, kvm;
};

struct placement_case {
	const char *name;
	struct host_case hosts[3];
	uint64_t memory_bytes;
	uint32_t vcpus;
	const char *accel, *wanted, *exclude;
	const char *expected;          /* NULL: nowhere */
	const char *reason;            /* words in it */
};

#define ON .state = GANTRY__HOST_STATE__HOST_STATE_ONLINE
#define EMPTY {.memory_bytes = 8 * GIB, .cpus = 4, ON}

static const struct placement_case cases[] = {
	{"equal: lowest node id", {EMPTY, EMPTY, EMPTY}, GIB, 1, .expected = "host1", .reason = "of 3 hosts"},
	{"most memory free",
	 {{.memory_bytes = 8 * GIB, .used_bytes = 2 * GIB, .cpus = 4, .domains = 1, ON}, EMPTY, EMPTY}, GIB, 1, .expected = "host2"},
	{"the share counts, not the bytes",
	 {{.memory_bytes = 16 * GIB, .used_bytes = 8 * GIB, .cpus = 4, .domains = 1, ON},
	  {.memory_bytes = 8 * GIB, .used_bytes = 3 * GIB, .cpus = 4, .domains = 1, ON},
	  {.memory_bytes = 8 * GIB, .used_bytes = 4 * GIB, .cpus = 4, .domains = 1, ON}},
	 GIB, 1, .expected = "host2"},
	{"fewer domains",
	 {{.memory_bytes = 8 * GIB, .used_bytes = 4 * GIB, .cpus = 4, .domains = 2, ON},
	  {.memory_bytes = 8 * GIB, .used_bytes = 4 * GIB, .cpus = 4, .domains = 1, ON},
	  {.memory_bytes = 8 * GIB, .used_bytes = 4 * GIB, .cpus = 4, .domains = 4, ON}},
	 GIB, 1, .expected = "host2"},
	{"states and agents",
	 {{.memory_bytes = 8 * GIB, .cpus = 4, .state = GANTRY__HOST_STATE__HOST_STATE_LOST}, {.memory_bytes = 8 * GIB, .cpus = 4, .agent_away = true, ON}, EMPTY},
	 GIB, 1, .expected = "host3", .reason = "1 host with room"},
	{"nowhere, with the reason of each",
	 {{.memory_bytes = 8 * GIB, .cpus = 4, .state = GANTRY__HOST_STATE__HOST_STATE_DEAD},
	  {.memory_bytes = 8 * GIB, .cpus = 4, .agent_away = true, ON},
	  {.memory_bytes = 2 * GIB, .used_bytes = GIB, .cpus = 4, .domains = 1, ON}},
	 2 * GIB, 1, .expected = NULL, .reason = "host1: dead; host2: its agent is not connected; host3: needs 2048 MiB, 1024 of 2048 MiB are free"},
	{"exactly full is room", {{.memory_bytes = GIB, .cpus = 1, ON}, {.state = GANTRY__HOST_STATE__HOST_STATE_JOINING}, {ON}}, GIB, 8, .expected = "host1"},
	{"too many vCPUs", {{.memory_bytes = GIB, .cpus = 1, ON}, {.state = GANTRY__HOST_STATE__HOST_STATE_JOINING}, {ON}}, GIB, 9, .expected = NULL,
	 .reason = "host1: needs 9 vCPUs, 0 of 8 are taken; host2: not seen yet"},
	{"kvm only where it is", {EMPTY, {.memory_bytes = 8 * GIB, .cpus = 4, .kvm = true, ON}, EMPTY}, GIB, 1, .accel = "kvm", .expected = "host2"},
	{"auto goes anywhere", {EMPTY, {.memory_bytes = 8 * GIB, .cpus = 4, .kvm = true, ON}, EMPTY}, GIB, 1, .accel = "auto", .expected = "host1"},
	{"as asked", {EMPTY, EMPTY, EMPTY}, GIB, 1, .wanted = "host3", .expected = "host3", .reason = "was asked for"},
	{"as asked, but no room", {EMPTY, EMPTY, {.memory_bytes = GIB, .cpus = 4, ON}}, 2 * GIB, 1, .wanted = "host3", .expected = NULL, .reason = "host3: needs 2048 MiB"},
	{"no such host", {EMPTY, EMPTY, EMPTY}, GIB, 1, .wanted = "host9", .expected = NULL, .reason = "no such host"},
	{"not where it has just failed", {EMPTY, EMPTY, EMPTY}, GIB, 1, .exclude = "host1", .expected = "host2"},
};

static void build(struct model *m, const struct placement_case *c)
{
	model_init(m);
	for (uint32_t i = 0; i < 3; i++) {
		const struct host_case *hc = &c->hosts[i];
		Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);
		char name[16];

		snprintf(name, sizeof(name), "host%u", i + 1);
		h->node_id = i + 1;
		h->state = hc->state;
		h->memory_bytes = hc->memory_bytes;
		h->cpus = hc->cpus;
		h->agent_connected = !hc->agent_away;
		pb_set_string(&h->name, name);
		pb_set_string(&h->accel, hc->kvm ? "kvm" : "tcg");
		PB_APPEND(m->state, hosts, h);
		for (uint32_t k = 0; k < hc->domains; k++) {
			Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);

			d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
			d->spec->memory_bytes = hc->used_bytes / hc->domains;
			d->id = (i + 1) * 100 + k;
			pb_set_string(&d->host, name);
			PB_APPEND(m->state, domains, d);
		}
	}
}

static void test_case(void **state)
{
	const struct placement_case *c = *state;
	Gantry__DomainSpec spec = GANTRY__DOMAIN_SPEC__INIT;
	const Gantry__Host *h;
	struct buf reason = {0};
	struct model m;

	build(&m, c);
	spec.memory_bytes = c->memory_bytes;
	spec.vcpus = c->vcpus;
	if (c->accel)
		spec.accel = (char *)(uintptr_t)c->accel;
	h = placement_choose(&m, &spec, c->wanted, c->exclude, &reason);
	assert_string_equal(h ? h->name : "nowhere", c->expected ? c->expected : "nowhere");
	assert_true(reason.len > 0);
	if (c->reason && !strstr(buf_str(&reason), c->reason))
		fail_msg("'%s' is not in: %s", c->reason, buf_str(&reason));
	buf_free(&reason);
	model_free(&m);
}

int main(void)
{
	enum { N = sizeof(cases) / sizeof(*cases) };
	struct CMUnitTest tests[N];

	for (size_t i = 0; i < N; i++)
		tests[i] = (struct CMUnitTest){.name = cases[i].name, .test_func = test_case, .initial_state = (void *)(uintptr_t)&cases[i]};
	return _cmocka_run_group_tests("placement", tests, N, NULL, NULL);
}
