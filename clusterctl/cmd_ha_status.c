/* ha status: every HA domain, and what would happen if each host failed now. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ha_policy.h"
#include "clusterctl/plan_view.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

/* ---- the domains */

static char *domain_notes(const Gantry__Domain *d)
{
	struct buf text = {0};

	if (d->quarantined)
		buf_printf(&text, "QUARANTINED: %zu hosts died under it; 'clusterctl start %s' lifts it", d->n_deaths, d->spec->name);
	else if (d->evicted[0])
		buf_printf(&text, "%s", d->evicted);
	else if (d->state != GANTRY__DOMAIN_STATE__DOMAIN_STATE_RUNNING)
		buf_printf(&text, "%s", d->reason);
	char *notes = str_dup(buf_str(&text));
	buf_free(&text);
	return notes;
}

static void domain_row(struct output_table *t, const Gantry__Domain *d)
{
	Gantry__HaPolicy *p = ha_policy_of(d);
	_cleanup_free_ char *by = ha_policy_ready_text(p);
	char *const cells[] = {
		str_dup(d->spec->name),
		str_dup(d->host[0] ? d->host : "-"),
		str_dup(pbjson_enum_word(&gantry__domain_state__descriptor, d->state)),
		str_printf("%u", p->priority),
		str_printf("%u", p->order),
		str_printf("%s, by %s", d->ready ? "yes" : "no", by),
		str_printf("%u/%u", d->restart_failures, p->restarts),
		domain_notes(d),
	};

	output_table_row(t, cells, json_null());
	gantry__ha_policy__free_unpacked(p, NULL);
}

static json_t *domain_json(const Gantry__Domain *d)
{
	Gantry__HaPolicy *p = ha_policy_of(d);
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:o}", "name", d->spec->name, "host", d->host, "state",
				 pbjson_enum_word(&gantry__domain_state__descriptor, d->state), "reason", d->reason, "ready", d->ready,
				 "quarantined", d->quarantined, "restarts_used", (int)d->restart_failures, "policy",
				 pbjson_from_message(&p->base, true));

	gantry__ha_policy__free_unpacked(p, NULL);
	return json;
}

/* ---- the hosts: plans[i] is of m->model->hosts[i], NULL where it runs nothing of the cluster */

static char *plan_outcome(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan)
{
	struct buf text = {0};

	for (size_t i = 0; i < plan->n_moves; i++)
		if (plan_finds_no_room(m, plan->moves[i]))
			buf_printf(&text, "%s%s: %s", text.len ? "; " : "", plan->moves[i]->domain, plan->moves[i]->reason);
	for (size_t i = 0; i < plan->n_notes; i++)
		buf_printf(&text, "%s%s", text.len ? "; " : "", plan->notes[i]);
	char *outcome = str_dup(buf_str(&text));
	buf_free(&text);
	return outcome;
}

static void host_row(struct output_table *t, const Gantry__CtlModel *m, const Gantry__Host *h, const Gantry__CtlPlan *plan)
{
	struct plan_sum sum = plan_count(m, plan);
	char *const cells[] = {
		str_dup(h->name), str_printf("%zu", sum.starts), str_printf("%zu", sum.no_room), str_printf("%zu", sum.down),
		str_dup(plan->quorum_text), plan_outcome(m, plan),
	};

	output_table_row(t, cells, json_null());
}

static int print_hosts(struct invocation *inv, const Gantry__CtlModel *m, Gantry__CtlPlan *const *plans)
{
	static const struct output_column columns[] = {{"If it failed now", false}, {"Start elsewhere", true}, {"Find no room", true},
						       {"Not HA", true}, {"Quorum", false}, {"Notes", false}};
	struct output_table *t = output_table_new(OUTPUT_TABLE, columns, ARRAY_SIZE(columns));

	for (size_t i = 0; i < m->model->n_hosts; i++)
		if (plans[i] != NULL)
			host_row(t, m, m->model->hosts[i], plans[i]);
	putchar('\n');
	return output_table_finish(t, &inv->err);
}

static int print_table(struct invocation *inv, const Gantry__CtlModel *m, Gantry__CtlPlan *const *plans)
{
	static const struct output_column columns[] = {{"Domain", false}, {"Host", false},  {"State", false},	{"Priority", true},
						       {"Order", true},	  {"Ready", false}, {"Restarts", true}, {"Notes", false}};
	_cleanup_free_ char *disarmed = cmd_ha_disarmed(m->model);
	struct output_table *t = output_table_new(OUTPUT_TABLE, columns, ARRAY_SIZE(columns));

	printf("%s\n\n", disarmed ? disarmed : "HA is armed");
	for (size_t i = 0; i < m->model->n_domains; i++)
		if (m->model->domains[i]->ha)
			domain_row(t, m->model->domains[i]);
	int rc = output_table_finish(t, &inv->err);
	return rc < 0 || plans == NULL ? rc : print_hosts(inv, m, plans);
}

static int print_json(struct invocation *inv, const Gantry__CtlModel *m, Gantry__CtlPlan *const *plans)
{
	json_t *domains = json_array(), *hosts = json_array();
	bool disarmed = m->model->ha && m->model->ha->disarmed;

	for (size_t i = 0; i < m->model->n_domains; i++)
		if (m->model->domains[i]->ha)
			json_array_append_new(domains, domain_json(m->model->domains[i]));
	for (size_t i = 0; plans != NULL && i < m->model->n_hosts; i++) {
		const char *name = m->model->hosts[i]->name;
		if (plans[i] == NULL)
			continue;
		json_t *json = plan_json(m, plans[i], &name, 1);
		json_object_set_new(json, "host", json_string(name));
		json_array_append_new(hosts, json);
	}
	return output_object(inv->format, json_pack("{s:b, s:I, s:s, s:o, s:o}", "armed", !disarmed, "until_ms",
						    (json_int_t)(disarmed ? m->model->ha->until_ms : 0), "reason",
						    disarmed ? m->model->ha->reason : "", "domains", domains, "hosts", hosts), &inv->err);
}

int cmd_ha_status(struct invocation *inv)
{
	Gantry__CtlPlan **plans = NULL;
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	if (m->quorate)
		rc = cmd_plans(inv, m, &plans);
	if (rc == 0)
		rc = inv->format == OUTPUT_TABLE ? print_table(inv, m, plans) : print_json(inv, m, plans);
	cmd_plans_free(plans, m->model->n_hosts);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}
