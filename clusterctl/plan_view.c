#include "clusterctl/plan_view.h"

#include <string.h>

#include "proto/pbjson.h"

const Gantry__Domain *plan_domain(const Gantry__CtlModel *m, const Gantry__PlanMove *move)
{
	for (size_t i = 0; i < m->model->n_domains; i++)
		if (strcmp(m->model->domains[i]->spec->name, move->domain) == 0)
			return m->model->domains[i];
	return NULL;
}

bool plan_finds_no_room(const Gantry__CtlModel *m, const Gantry__PlanMove *move)
{
	const Gantry__Domain *d = plan_domain(m, move);

	return move->to[0] == '\0' && d != NULL && d->ha;
}

struct plan_sum plan_count(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan)
{
	struct plan_sum sum = {0};

	for (size_t i = 0; i < plan->n_moves; i++) {
		if (plan->moves[i]->to[0] != '\0')
			sum.starts++;
		else if (plan_finds_no_room(m, plan->moves[i]))
			sum.no_room++;
		else
			sum.down++;
	}
	return sum;
}

static bool is_failed(const char *name, const char *const *failed, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, failed[i]) == 0)
			return true;
	return false;
}

bool plan_goes_on(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan, const char *const *failed, size_t n)
{
	size_t left = 0;

	for (size_t i = 0; i < m->model->n_voters; i++)
		for (size_t k = 0; k < m->model->n_hosts; k++) {
			const Gantry__Host *h = m->model->hosts[k];
			left += h->node_id == m->model->voters[i] && h->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE &&
				!is_failed(h->name, failed, n);
		}
	return plan->quorate || (left > 0 && left * 2 == m->model->n_voters);
}

json_t *plan_json(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan, const char *const *failed, size_t n)
{
	struct plan_sum sum = plan_count(m, plan);
	json_t *json = pbjson_from_message(&plan->base, true), *names = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(names, json_string(failed[i]));
	json_object_set_new(json, "failed", names);
	json_object_set_new(json, "starts", json_integer((json_int_t)sum.starts));
	json_object_set_new(json, "no_room", json_integer((json_int_t)sum.no_room));
	json_object_set_new(json, "goes_on", json_boolean(plan_goes_on(m, plan, failed, n)));
	return json;
}
