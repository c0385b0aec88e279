/* gantry-sim: runs the shipped log in a simulated cluster, from seeds. docs/log.md tells how to read a trace. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/sim.h"

static const char usage[] =
	"Usage: gantry-sim [--seeds A-B | --seed N [--trace]] [--minutes M] [--hosts H] [--rate FAULTS/S]\n"
	"                  [--until-violation] [--json FILE]\n"
	"Runs the replicated log of clusterd in a simulated cluster with faults from each seed.\n"
	"Exit status: 0 no violation, 1 violations (or --until-violation met none), 64 usage.\n";

struct totals {
	uint64_t seeds, commits, unknown, snapshots, epochs, simulated_ms, faults[FAULT_KINDS], violations;
	json_t *list;
};

static void one_seed(const struct sim_options *o, struct totals *t)
{
	struct sim_result r;

	sim_run(o, &r);
	t->seeds++;
	t->commits += r.commits;
	t->unknown += r.unknown;
	t->snapshots += r.snapshots;
	t->epochs += r.epochs;
	t->simulated_ms += r.simulated_ms;
	for (int i = 0; i < FAULT_KINDS; i++)
		t->faults[i] += r.faults[i];
	if (o->trace)
		printf("seed %lu: hash %016lx\n", o->seed, r.hash);
	if (r.violation[0]) {
		printf("seed %lu: VIOLATION: %s\n  see it: gantry-sim --seed %lu --hosts %u --minutes %u --rate %g --trace\n", o->seed,
		       r.violation, o->seed, o->hosts, o->minutes, o->fault_rate);
		t->violations++;
		json_array_append_new(t->list, json_pack("{s:I,s:s}", "seed", (json_int_t)o->seed, "what", r.violation));
	}
}

static int write_json(const char *path, const struct totals *t, double per_s)
{
	json_t *faults = json_object(), *root;
	int rc;

	for (int i = 0; i < FAULT_KINDS; i++)
		json_object_set_new(faults, sim_fault_names[i], json_integer((json_int_t)t->faults[i]));
	root = json_pack("{s:I,s:o,s:O,s:f}", "seeds", (json_int_t)t->seeds, "faults", faults, "violations", t->list,
			 "sim_seconds_per_s", per_s);
	rc = json_dump_file(root, path, JSON_INDENT(1));
	json_decref(root);
	return rc;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seeds", 1, 0, 's'}, {"seed", 1, 0, 'n'}, {"minutes", 1, 0, 'm'}, {"hosts", 1, 0, 'h'}, {"rate", 1, 0, 'r'},
		{"trace", 0, 0, 't'}, {"json", 1, 0, 'j'}, {"until-violation", 0, 0, 'u'}, {"help", 0, 0, '?'}, {0}};
	struct sim_options o = {.hosts = 5, .minutes = 5, .fault_rate = 0.3};
	uint64_t from = 1, to = 20;
	struct totals t = {.list = json_array()};
	const char *json = NULL;
	bool until = false;
	struct timespec a, b;
	double wall;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': if (sscanf(optarg, "%lu-%lu", &from, &to) != 2) goto bad; break;
		case 'n': from = to = strtoull(optarg, NULL, 10); break;
		case 'm': o.minutes = atoi(optarg); break;
		case 'h': o.hosts = atoi(optarg); break;
		case 'r': o.fault_rate = atof(optarg); break;
		case 't': o.trace = true; break;
		case 'j': json = optarg; break;
		case 'u': until = true; break;
		default: goto bad;
		}
	}
	if (optind != argc || !o.hosts || o.hosts > SIM_HOSTS_MAX || !o.minutes || o.fault_rate <= 0)
		goto bad;
	printf("gantry-sim: seeds %lu-%lu, %u hosts, %u minutes each, %g faults/s\n", from, to, o.hosts, o.minutes, o.fault_rate);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (o.seed = from; o.seed <= to && !(until && t.violations); o.seed++)
		one_seed(&o, &t);
	clock_gettime(CLOCK_MONOTONIC, &b);
	wall = b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%lu seeds, %lu commits, %lu of unknown outcome, %lu epochs, %lu snapshots installed, %.0f simulated s/s\nfaults:", t.seeds,
	       t.commits, t.unknown, t.epochs, t.snapshots, t.simulated_ms / 1000.0 / wall);
	for (int i = 0; i < FAULT_KINDS; i++) {
		printf(" %s %lu", sim_fault_names[i], t.faults[i]);
		if (!t.faults[i] && t.seeds >= 5) {
			printf("\nthis kind of fault did not happen: the run proves nothing\n");
			t.violations++;
		}
	}
	printf("\n%lu violations\n", t.violations);
	if (json && write_json(json, &t, t.simulated_ms / 1000.0 / wall))
		fprintf(stderr, "gantry-sim: cannot write %s\n", json);
	json_decref(t.list);
	return until ? !t.violations : t.violations > 0;
bad:
	fputs(usage, stderr);
	json_decref(t.list);
	return 64;
}
