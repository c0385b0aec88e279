#include "clusterctl/cluster_verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/plan_view.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/ha_defaults.h"
#include "proto/pbjson.h"

#define ERROR GANTRY__EVENT_SEVERITY__EVENT_ERROR
#define WARNING GANTRY__EVENT_SEVERITY__EVENT_WARNING
#define HOST(x) GANTRY__HOST_STATE__HOST_STATE_##x
#define DOM(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x
#define WATCHDOG "watchdog"   /* FENCE_WATCHDOG of fencing/fence_agent.h */

/* Subject and remedy are taken over. */
static void add(struct findings *f, Gantry__EventSeverity severity, const char *kind, char *subject, char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

static void add(struct findings *f, Gantry__EventSeverity severity, const char *kind, char *subject, char *remedy, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	f->list = mem_realloc(f->list, (f->n + 1) * sizeof(*f->list));
	f->list[f->n++] = (struct finding){.severity = severity, .kind = kind, .subject = subject, .text = str_dup(text), .remedy = remedy};
}

void findings_free(struct findings *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->list[i].subject);
		free(f->list[i].text);
		free(f->list[i].remedy);
	}
	free(f->list);
	*f = (struct findings){0};
}

static char *host_subject(const Gantry__Host *h)
{
	return str_printf("host %s", h->name);
}

static char *cluster_subject(const struct verify_input *in)
{
	return str_printf("cluster %s", in->m->model->cluster_name);
}

/* ---- hosts */

static void check_state(const Gantry__Host *h, struct findings *f)
{
	const char *word = pbjson_enum_word(&gantry__host_state__descriptor, h->state);

	if (h->state == HOST(JOINING))
		add(f, WARNING, "host-not-seen", host_subject(h), str_printf("start it, or 'clusterctl host remove %s'", h->name),
		    "it was added and has never come online");
	else if (h->state != HOST(ONLINE))
		add(f, ERROR, "host-not-online", host_subject(h), str_printf("bring it back, or 'clusterctl host remove %s'", h->name), "%s%s%s", word,
		    h->state_reason[0] ? ": " : "", h->state_reason);
	else if (!h->agent_connected)
		add(f, ERROR, "agent-not-connected", host_subject(h), str_printf("see the service gantry-agent on %s", h->name),
		    "its agent is not connected: its domains go on, and it gets no new ones");
	if (h->unguarded && h->state != HOST(ONLINE))
		add(f, WARNING, "host-unguarded", host_subject(h), str_printf("when it is off: 'clusterctl fence confirm %s --yes'", h->name),
		    "it was lost while HA was disarmed, so that its watchdog proves nothing");
	if (h->leftovers)
		add(f, WARNING, "leftovers", host_subject(h), str_printf("its agent ends them; if they stay, see the journal of gantry-agent on %s", h->name),
		    "%u QEMU%s there that the cluster knows nothing of: it gets no new domains", h->leftovers, h->leftovers == 1 ? " runs" : "s run");
}

static void check_fence(const Gantry__Host *h, struct findings *f)
{
	size_t n_watchdog = 0;

	for (size_t i = 0; i < h->n_fence; i++)
		n_watchdog += strcmp(h->fence[i]->agent, WATCHDOG) == 0;
	if (h->n_fence == 0)
		add(f, ERROR, "no-fence-device", host_subject(h), str_printf("clusterctl fence set %s AGENT KEY=VALUE...", h->name),
		    "nothing can prove it dead: when it is lost, its domains stay down until somebody confirms that it is off");
	else if (n_watchdog == h->n_fence && !h->watchdog[0])
		add(f, ERROR, "no-watchdog", host_subject(h), str_printf("set 'watchdog' in its /etc/gantry/host.yaml, or 'clusterctl fence set %s AGENT'", h->name),
		    "nothing can prove it dead: its only fence device is a watchdog, and its agent reports none");
	else if (n_watchdog != 0 && !h->watchdog[0])
		add(f, WARNING, "no-watchdog", host_subject(h), str_printf("set 'watchdog' in its /etc/gantry/host.yaml"),
		    "a watchdog is one of its fence devices, and its agent reports none: that level fails");
}

/* ---- pools */

static bool is_listed(const char *name, char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, list[i]) == 0)
			return true;
	return false;
}

static const Gantry__PoolReport *pool_report(const Gantry__CtlModel *m, const Gantry__Host *h, const char *pool)
{
	for (size_t i = 0; i < m->n_soft; i++)
		for (size_t k = 0; m->soft[i]->node_id == h->node_id && k < m->soft[i]->n_pools; k++)
			if (strcmp(m->soft[i]->pools[k]->name, pool) == 0)
				return m->soft[i]->pools[k];
	return NULL;
}

static void check_pool_on(const struct verify_input *in, const Gantry__Pool *pool, const Gantry__Host *h, struct findings *f)
{
	const Gantry__PoolReport *report = pool_report(in->m, h, pool->name);
	bool lost = is_listed(pool->name, h->lost_pools, h->n_lost_pools);
	bool told = report != NULL && report->checked && !report->ok;

	if (lost || told)
		add(f, ERROR, "pool-lost", host_subject(h), str_printf("mend the way from %s to %s; see 'clusterctl pool list'", h->name, pool->target),
		    "it cannot use pool '%s'%s%s", pool->name, told ? ": " : "", told ? report->reason : "");
}

static void check_pool(const struct verify_input *in, const Gantry__Pool *pool, struct findings *f)
{
	const Gantry__Host *first = NULL;
	uint64_t capacity = 0;

	for (size_t i = 0; i < in->m->model->n_hosts; i++) {
		const Gantry__Host *h = in->m->model->hosts[i];
		const Gantry__PoolReport *report = pool_report(in->m, h, pool->name);
		if (h->state != HOST(ONLINE))
			continue;
		check_pool_on(in, pool, h, f);
		if (!pool->shared || report == NULL || !report->ok || report->capacity_bytes == 0)
			continue;
		if (first != NULL && report->capacity_bytes != capacity)
			add(f, WARNING, "pool-differs", str_printf("pool %s", pool->name), str_printf("compare what is mounted at %s on both", pool->target),
			    "%s and %s see different sizes of it: is it the same store on both?", first->name, h->name);
		if (first == NULL) {
			first = h;
			capacity = report->capacity_bytes;
		}
	}
}

/* ---- domains */

static bool is_written(const Gantry__Disk *disk)
{
	return !disk->readonly && !disk->cdrom && !disk->empty;
}

static const Gantry__Pool *pool_named(const Gantry__ClusterModel *s, const char *name)
{
	for (size_t i = 0; i < s->n_pools; i++)
		if (strcmp(s->pools[i]->name, name) == 0)
			return s->pools[i];
	return NULL;
}

static void check_disks(const struct verify_input *in, const Gantry__Domain *d, struct findings *f)
{
	bool leave = d->policy != NULL && d->policy->isolation == GANTRY__ISOLATION__ISOLATION_LEAVE;

	for (size_t i = 0; i < d->spec->n_disks; i++) {
		const Gantry__Disk *disk = d->spec->disks[i];
		const Gantry__Pool *pool = pool_named(in->m->model, disk->pool);
		if (disk->empty)
			continue;
		if (pool != NULL && !pool->shared)
			add(f, WARNING, "one-host-only", str_printf("domain %s", d->spec->name), str_dup("put its volumes into a shared pool"),
			    "its disk %s is in pool '%s', of which each host has its own: it cannot be started elsewhere", disk->vdev, pool->name);
		if (disk->pool[0] == '\0' && leave && is_written(disk))
			add(f, ERROR, "leave-without-lease", str_printf("domain %s", d->spec->name),
			    str_printf("clusterctl ha set %s --isolation stop, or put the disk into a pool", d->spec->name),
			    "it is left running on a host without quorum, but no lease guards its disk %s", disk->vdev);
	}
}

static void check_domain(const struct verify_input *in, const Gantry__Domain *d, struct findings *f)
{
	char *subject = str_printf("domain %s", d->spec->name), *start = str_printf("clusterctl start %s", d->spec->name);
	const char *reason = d->reason[0] ? d->reason : "no reason is known";

	if (d->quarantined)
		add(f, ERROR, "quarantined", TAKE_PTR(subject), str_printf("find out why hosts die of it; then '%s'", start),
		    "quarantined: %zu hosts in a row died soon after it began to run there", d->n_deaths);
	else if (d->state == DOM(FAILED))
		add(f, ERROR, "failed", TAKE_PTR(subject), str_printf("mend the cause; then '%s'", start), "failed: %s", reason);
	else if (d->state == DOM(CRASHED))
		add(f, ERROR, "crashed", TAKE_PTR(subject), TAKE_PTR(start), "crashed: %s", reason);
	else if (d->state == DOM(WAITING))
		add(f, ERROR, "waiting", TAKE_PTR(subject), str_dup("make room, or bring hosts back: it starts by itself"), "waits: %s", reason);
	if (d->ha)
		check_disks(in, d, f);
	free(subject);
	free(start);
}

/* ---- what hosts should have in common */

static const char *clusterd_version(const Gantry__CtlModel *m, const Gantry__Host *h)
{
	for (size_t i = 0; i < m->n_soft; i++)
		if (m->soft[i]->node_id == h->node_id)
			return m->soft[i]->version;
	return "";
}

static const char *agent_version(const Gantry__CtlModel *m, const Gantry__Host *h)
{
	return h->agent_version;
}

static const char *qemu_version(const Gantry__CtlModel *m, const Gantry__Host *h)
{
	return h->qemu_version;
}

static const char *accel(const Gantry__CtlModel *m, const Gantry__Host *h)
{
	return h->accel;
}

static void check_same(const struct verify_input *in, struct findings *f)
{
	static const struct {
		const char *what, *remedy;
		const char *(*get)(const Gantry__CtlModel *m, const Gantry__Host *h);
	} things[] = {
		{"versions of clusterd", "finish the upgrade", clusterd_version},
		{"versions of gantry-agent", "finish the upgrade", agent_version},
		{"versions of QEMU", "finish the upgrade: a domain may not migrate from a newer one to an older one", qemu_version},
		{"accelerations", "see why KVM does not work on some (/dev/kvm): what moves there becomes slow", accel},
	};

	for (size_t i = 0; i < ARRAY_SIZE(things); i++) {
		const char *first = NULL;
		struct buf list = {0};
		bool differ = false;
		for (size_t k = 0; k < in->m->model->n_hosts; k++) {
			const Gantry__Host *h = in->m->model->hosts[k];
			const char *value = things[i].get(in->m, h);
			if (value[0] == '\0' || h->state != HOST(ONLINE))
				continue;
			differ = differ || (first != NULL && strcmp(first, value) != 0);
			first = first ? first : value;
			buf_printf(&list, "%s%s %s", list.len ? ", " : "", h->name, value);
		}
		if (differ)
			add(f, WARNING, "differ", cluster_subject(in), str_dup(things[i].remedy), "different %s: %s", things[i].what, buf_str(&list));
		buf_free(&list);
	}
}

/* ---- the cluster */

static void check_quorum(const struct verify_input *in, struct findings *f)
{
	const Gantry__CtlStatus *s = in->status;

	if (!s->quorate)
		add(f, ERROR, "no-quorum", cluster_subject(in), str_dup("bring hosts back; see 'clusterctl cluster status'"), "no quorum: %s", s->log_state);
	for (size_t i = 0; i < s->n_members; i++)
		if (s->members[i]->member && (!s->members[i]->synced || !s->members[i]->voter))
			add(f, WARNING, "not-in-step", str_printf("host %s", s->members[i]->name), str_dup("wait; if it stays so, see the journal of its clusterd"),
			    "%s", s->members[i]->synced ? "it has no vote (yet)" : "it is a member, but its log is not in step");
}

static void check_disarmed(const struct verify_input *in, struct findings *f)
{
	const Gantry__HaState *ha = in->m->model->ha;

	if (ha != NULL && ha->disarmed)
		add(f, WARNING, "disarmed", cluster_subject(in), str_dup("clusterctl ha arm"), "HA is disarmed%s%s", ha->reason[0] ? ": " : "", ha->reason);
}

/* The brake is for many at once. */
static void check_share(const struct verify_input *in, struct findings *f)
{
	const Gantry__HaState *ha = in->m->model->ha;
	unsigned share = ha != NULL && ha->fence_share_percent ? ha->fence_share_percent : HA_FENCE_SHARE_DEFAULT;
	size_t online = 0;

	for (size_t i = 0; i < in->m->model->n_hosts; i++)
		online += in->m->model->hosts[i]->state == HOST(ONLINE);
	if (online > 2 && (online - 1) * share < 100)
		add(f, ERROR, "fence-share", cluster_subject(in), str_printf("clusterctl cluster set fence-share=%zu, or more", (99 + online - 1) / (online - 1)),
		    "no lost host is fenced, not even a single one: it is more than %u %% of the %zu others", share, online - 1);
}

/* ---- and if one more host failed */

static void check_room(const struct verify_input *in, const Gantry__Host *h, const Gantry__CtlPlan *plan, struct findings *f)
{
	struct plan_sum sum = plan_count(in->m, plan);
	struct buf list = {0};

	for (size_t i = 0; i < plan->n_moves; i++)
		if (plan_finds_no_room(in->m, plan->moves[i]))
			buf_printf(&list, "%s%s (%s)", list.len ? ", " : "", plan->moves[i]->domain, plan->moves[i]->reason);
	if (sum.no_room)
		add(f, WARNING, "no-room", host_subject(h), str_dup("add memory or hosts, stop domains, or let others give way ('clusterctl ha set --gives-way')"),
		    "if it failed now, %zu HA domain%s would find no room: %s", sum.no_room, sum.no_room == 1 ? "" : "s", buf_str(&list));
	buf_free(&list);
}

static void check_plans(const struct verify_input *in, struct findings *f)
{
	struct buf names = {0};
	const char *text = "";

	for (size_t i = 0; in->plans != NULL && i < in->m->model->n_hosts; i++) {
		const Gantry__Host *h = in->m->model->hosts[i];
		if (in->plans[i] == NULL)
			continue;
		check_room(in, h, in->plans[i], f);
		if (in->plans[i]->quorate)
			continue;
		buf_printf(&names, "%s%s", names.len ? ", " : "", h->name);
		text = in->plans[i]->quorum_text;
	}
	if (names.len)
		add(f, WARNING, "quorum-margin", cluster_subject(in), str_dup("add a host or a quorum device, or bring back those that are missing"),
		    "the quorum has no margin: if one of these failed (%s), %s", buf_str(&names), text);
	buf_free(&names);
}

void cluster_verify(const struct verify_input *in, struct findings *out)
{
	const Gantry__ClusterModel *s = in->m->model;

	check_quorum(in, out);
	check_disarmed(in, out);
	check_share(in, out);
	for (size_t i = 0; i < s->n_hosts; i++) {
		check_state(s->hosts[i], out);
		/* With nobody to take over there is nothing to be proven. */
		if (s->n_hosts > 1)
			check_fence(s->hosts[i], out);
	}
	for (size_t i = 0; i < s->n_pools; i++)
		check_pool(in, s->pools[i], out);
	for (size_t i = 0; i < s->n_domains; i++)
		check_domain(in, s->domains[i], out);
	check_same(in, out);
	check_plans(in, out);
}
