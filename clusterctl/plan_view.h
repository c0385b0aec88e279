/* What the leader would do (CtlPlan), as people and programs read it. Pure. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "proto/ctl.pb-c.h"

struct plan_sum {
	size_t starts;    /* HA domains that find another host */
	size_t no_room;   /* HA domains that find none */
	size_t down;      /* not HA: nobody starts them */
};

const Gantry__Domain *plan_domain(const Gantry__CtlModel *m, const Gantry__PlanMove *move);
/* It runs now and would run nowhere, although the cluster is to keep it up. */
bool plan_finds_no_room(const Gantry__CtlModel *m, const Gantry__PlanMove *move);
struct plan_sum plan_count(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan);
/* Those that are left may start something: they have the quorum, or are half of the voters, who go on once the others are proven dead. */
bool plan_goes_on(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan, const char *const *failed, size_t n);
/* {failed, quorate, quorum_text, moves: [...], notes, starts, no_room}. New reference. */
json_t *plan_json(const Gantry__CtlModel *m, const Gantry__CtlPlan *plan, const char *const *failed, size_t n);
