/* What the cluster would do. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/plan_view.h"
#include "lib/buf.h"
#include "lib/cleanup.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static int ask_plan(struct invocation *inv, const char *const *failed, size_t n, Gantry__CtlPlan **ret)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *answer = NULL;
	Gantry__CtlWhatIf body = GANTRY__CTL_WHAT_IF__INIT;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	body.failed = (char **)failed;
	body.n_failed = n;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_WHAT_IF;
	request.what_if = &body;
	if (rc == 0)
		rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_PLAN, &answer, &inv->err);
	if (rc < 0)
		return rc;
	*ret = answer->plan;
	answer->plan = NULL;
	answer->body_case = GANTRY__CTL_MESSAGE__BODY__NOT_SET;
	gantry__ctl_message__free_unpacked(answer, NULL);
	return 0;
}

int cmd_plans(struct invocation *inv, const Gantry__CtlModel *m, Gantry__CtlPlan ***ret)
{
	Gantry__CtlPlan **plans = mem_alloc((m->model->n_hosts + 1) * sizeof(Gantry__CtlPlan *));
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < m->model->n_hosts; i++) {
		const char *name = m->model->hosts[i]->name;
		if (m->model->hosts[i]->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE)
			rc = ask_plan(inv, &name, 1, &plans[i]);
	}
	if (rc < 0) {
		cmd_plans_free(plans, m->model->n_hosts);
		return rc;
	}
	*ret = plans;
	return 0;
}

void cmd_plans_free(Gantry__CtlPlan **plans, size_t n)
{
	for (size_t i = 0; plans != NULL && i < n; i++)
		if (plans[i] != NULL)
			gantry__ctl_plan__free_unpacked(plans[i], NULL);
	free(plans);
}

/* ---- whatif fail */

static void add_move(struct output_table *t, const Gantry__CtlModel *m, const Gantry__PlanMove *move)
{
	const Gantry__Domain *d = plan_domain(m, move);
	bool stays_down = move->to[0] == '\0' && d != NULL && !d->ha;
	char *const cells[] = {
		str_dup(move->domain),
		str_dup(move->from),
		str_dup(move->to[0] ? move->to : plan_finds_no_room(m, move) ? "NO ROOM" : "-"),
		d != NULL && d->ha ? str_printf("%u", move->priority) : str_dup("-"),
		stays_down ? str_dup("not HA: it stays down until somebody starts it") : str_dup(move->reason),
	};

	output_table_row(t, cells, json_null());
}

static int print_plan(struct invocation *inv, const Gantry__CtlModel *m, const Gantry__CtlPlan *plan)
{
	static const struct output_column columns[] = {{"Domain", false}, {"From", false}, {"To", false}, {"Priority", true}, {"Why", false}};

	if (inv->format == OUTPUT_JSON || inv->format == OUTPUT_YAML)
		return output_object(inv->format, plan_json(m, plan, inv->args, inv->n_args), &inv->err);
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < plan->n_moves; i++)
		add_move(t, m, plan->moves[i]);
	int rc = output_table_finish(t, &inv->err);
	if (rc < 0 || inv->format == OUTPUT_NAME)
		return rc;
	printf("\nQuorum: %s\n", plan->quorum_text);
	for (size_t i = 0; i < plan->n_notes; i++)
		printf("Note: %s\n", plan->notes[i]);
	return 0;
}

/* A script that takes hosts down one after the other stops at the first that is not free to go. */
static int judge(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan, const char *const *failed, size_t n)
{
	struct plan_sum sum = plan_count(m, plan);

	if (sum.no_room != 0)
		fprintf(stderr, "clusterctl: %zu HA domain%s would find no room\n", sum.no_room, sum.no_room == 1 ? "" : "s");
	else if (sum.starts != 0 && !plan_goes_on(m, plan, failed, n))
		fprintf(stderr, "clusterctl: %zu HA domain%s would not be started: no quorum is left\n", sum.starts, sum.starts == 1 ? "" : "s");
	else
		return 0;
	return STATUS(CONSTRAINT);
}

int cmd_whatif_fail(struct invocation *inv)
{
	Gantry__CtlPlan *plan = NULL;
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc == 0)
		rc = ask_plan(inv, inv->args, inv->n_args, &plan);
	if (rc == 0)
		rc = print_plan(inv, m, plan);
	if (rc == 0)
		rc = judge(m, plan, inv->args, inv->n_args);
	if (plan != NULL)
		gantry__ctl_plan__free_unpacked(plan, NULL);
	if (m != NULL)
		gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}
