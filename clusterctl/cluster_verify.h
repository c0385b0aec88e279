/* What is wrong with a cluster, or would be when it matters: read from its state. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/ctl.pb-c.h"

/* Owner of the strings: the list. */
struct finding {
	Gantry__EventSeverity severity;   /* error: something is down or unprotected; warning: it would be at the next fault */
	const char *kind;                 /* stable machine word */
	char *subject, *text, *remedy;
};

struct findings {
	struct finding *list;
	size_t n;
};

struct verify_input {
	const Gantry__CtlModel *m;
	const Gantry__CtlStatus *status;
	Gantry__CtlPlan *const *plans;    /* of m->model->hosts[i] if it failed; NULL, or NULL in it: not known */
};

void cluster_verify(const struct verify_input *in, struct findings *out);
void findings_free(struct findings *f);
