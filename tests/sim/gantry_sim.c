/* gantry-sim: runs whole simulated clusters from seeds. docs/proof.md says what that proves and how to read a trace. */
#include <getopt.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/mutant.h"
#include "tests/sim/sim.h"

#define TAIL_LINES 40
#define SHRINK_RUNS_MAX 2000

static const char usage[] =
	"Usage: gantry-sim [--seeds A-B | --seed N [--trace | --shrink]] [--hosts H] [--domains D] [--minutes M]\n"
	"                  [--faults calm|rough|hostile] [--until-violation] [--json FILE] [--mutant NAME]\n"
	"       gantry-sim --list-mutants\n"
	"Runs the shipped cores of clusterd and of the agent in simulated clusters, with faults drawn from each seed, and checks\n"
	"at every step what must never happen.\n"
	"  --seeds A-B        these seeds (default 1-20); --seed N only this one\n"
	"  --hosts H          1 to 32 (default 5); --domains D (default 50); --minutes M of faults each (default 10)\n"
	"  --faults PROFILE   calm, rough or hostile (default)\n"
	"  --trace            the whole story of the seed\n"
	"  --shrink           cuts the faults of a seed that fails to as few as still fail, and says which\n"
	"  --until-violation  ends at the first\n"
	"  --mutant NAME      turns on one planted bug; --list-mutants names them\n"
	"Exit status: 0 no violation; 1 violations, or faults that did not happen; 64 usage.\n";

struct totals {
	uint64_t seeds, simulated_ms, violations;
	struct sim_result sum;
	json_t *list;
};

#ifdef GANTRY_MUTANTS
enum mutant mutant_chosen = MUTANT_COUNT;
#endif

/* ---- mutants ------------------------------------------------------------------- */

static const struct { const char *name, *words; } mutants[] = {
#define MUTANT_ROW(name, words) {#name, words},
	MUTANT_LIST(MUTANT_ROW)
#undef MUTANT_ROW
};

static void list_mutants(void)
{
	for (int i = 0; i < MUTANT_COUNT; i++)
		printf("%-26s %s\n", mutants[i].name, mutants[i].words);
}

/* This program links the cores as they are shipped, without any planted bug; the one with them stands beside it. */
static int choose_mutant(const char *name, char **argv)
{
	int i = 0;

	while (i < MUTANT_COUNT && strcmp(mutants[i].name, name))
		i++;
	if (i == MUTANT_COUNT) {
		fprintf(stderr, "gantry-sim: no mutant '%s'; see gantry-sim --list-mutants\n", name);
		return 64;
	}
#ifdef GANTRY_MUTANTS
	mutant_chosen = (enum mutant)i;
	printf("mutant %s: %s\n", mutants[i].name, mutants[i].words);
	return 0;
#else
	char self[PATH_MAX], other[PATH_MAX + 32];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len > 0) {
		self[len] = '\0';
		snprintf(other, sizeof(other), "%s/gantry-sim-mutant", dirname(self));
		execv(other, argv);
	}
	fprintf(stderr, "gantry-sim: gantry-sim-mutant cannot be run; it is built beside this program\n");
	return 64;
#endif
}

/* ---- one seed --------------------------------------------------------------------- */

static struct sim_tail *tail_now;
static uint64_t seed_now;

static void tail_print(const struct sim_tail *t)
{
	size_t n = t->next < TAIL_LINES ? t->next : TAIL_LINES;

	for (size_t i = t->next - n; i < t->next; i++)
		printf("    %s\n", t->lines[i % SIM_TAIL_LINES]);
}

/* An assertion of the cores is a checker too. */
static void on_abort(int sig)
{
	printf("seed %lu: VIOLATION: assertion: a core found itself in an impossible state (see the line above)\n", seed_now);
	if (tail_now)
		tail_print(tail_now);
	fflush(stdout);
	_exit(1);
}

static void how_to_see(const struct sim_options *o)
{
	printf("  see it: gantry-sim --seed %lu --hosts %u --domains %u --minutes %u --faults %s --trace\n", o->seed, o->hosts, o->domains,
	       o->minutes, o->profile->name);
}

/* The end of the story. */
static void print_tail(const struct sim_options *o)
{
	struct sim_options again = *o;
	struct sim_tail *tail = calloc(1, sizeof(*tail));
	struct sim_result r;

	again.trace = true;
	again.tail = tail_now = tail;
	sim_run(&again, &r);
	tail_now = NULL;
	tail_print(tail);
	free(tail);
}

static void one_seed(const struct sim_options *o, struct totals *t)
{
	struct sim_result r;

	seed_now = o->seed;
	sim_run(o, &r);
	t->seeds++;
	t->simulated_ms += r.simulated_ms;
	for (int i = 0; i < FAULT_KINDS; i++)
		t->sum.faults[i] += r.faults[i];
	for (size_t i = 0; i < SIM_COUNTERS; i++)
		((uint64_t *)&t->sum.commands)[i] += ((uint64_t *)&r.commands)[i];
	if (o->trace)
		printf("seed %lu: hash %016lx\n", o->seed, r.hash);
	if (!r.violation[0])
		return;
	printf("seed %lu: VIOLATION: %s\n", o->seed, r.violation);
	how_to_see(o);
	if (!o->trace)
		print_tail(o);
	fflush(stdout);
	t->violations++;
	json_array_append_new(t->list, json_pack("{s:I,s:s}", "seed", (json_int_t)o->seed, "what", r.violation));
}

/* ---- shrinking ------------------------------------------------------------------------ */

/* In a process of its own: an assertion ends it. The invariant that fails, "" if none. */
static void try_without(const struct sim_options *o, char *ret, size_t size)
{
	int fds[2];
	ssize_t len;
	pid_t pid;

	*ret = '\0';
	if (pipe(fds) < 0 || (pid = fork()) < 0)
		return;
	if (!pid) {
		struct sim_result r;

		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		sim_run(o, &r);
		len = write(fds[1], r.violation, strcspn(r.violation, ":"));
		_exit(len < 0);
	}
	close(fds[1]);
	len = read(fds[0], ret, size - 1);
	ret[len > 0 ? len : 0] = '\0';
	close(fds[0]);
	waitpid(pid, &fds[0], 0);
	if (WIFSIGNALED(fds[0]))
		snprintf(ret, size, "assertion");
}

static bool still_fails(struct sim_options *o, const bool *without, const char *invariant)
{
	char what[64];

	o->without = without;
	try_without(o, what, sizeof(what));
	return !strcmp(what, invariant);
}

/* Leaves out ever smaller runs of faults, as long as the same invariant fails (Zeller's ddmin, without its first half). */
static int shrink(struct sim_options *o)
{
	size_t n = faults_count(o), left = n, runs = 0;
	bool *without = calloc(n + 1, sizeof(*without));
	char invariant[64];

	o->n_without = n;
	o->without = without;
	try_without(o, invariant, sizeof(invariant));
	if (!*invariant) {
		printf("seed %lu does not fail\n", o->seed);
		free(without);
		return 0;
	}
	printf("seed %lu fails with '%s'; %zu faults\n", o->seed, invariant, n);
	for (size_t chunk = n / 2; chunk && runs < SHRINK_RUNS_MAX; chunk /= 2) {
		for (size_t at = 0; at < n && runs < SHRINK_RUNS_MAX; at += chunk) {
			size_t end = at + chunk < n ? at + chunk : n;
			bool *before = malloc((n + 1) * sizeof(*before)), any = false;

			memcpy(before, without, n * sizeof(*before));
			for (size_t i = at; i < end; i++) {
				any = any || !without[i];
				without[i] = true;
			}
			if (any && (runs++, !still_fails(o, without, invariant)))
				memcpy(without, before, n * sizeof(*before));
			free(before);
		}
		left = 0;
		for (size_t i = 0; i < n; i++)
			left += !without[i];
		printf("  %zu faults are left after %zu runs\n", left, runs);
		fflush(stdout);
	}
	o->without = without;
	o->trace = true;
	printf("the story with these %zu faults alone:\n", left);
	sim_run(o, &(struct sim_result){0});
	free(without);
	return 1;
}

/* ---- the result -------------------------------------------------------------------------- */

static int write_json(const char *path, const struct totals *t, double per_s)
{
	json_t *faults = json_object(), *root;
	int rc;

	for (int i = 0; i < FAULT_KINDS; i++)
		json_object_set_new(faults, sim_fault_names[i], json_integer((json_int_t)t->sum.faults[i]));
	root = json_pack("{s:I,s:o,s:O,s:f}", "seeds", (json_int_t)t->seeds, "faults", faults, "violations", t->list,
			 "sim_seconds_per_s", per_s);
	rc = json_dump_file(root, path, JSON_INDENT(1));
	json_decref(root);
	return rc;
}

/* A kind that the profile has, and that should have come several times over so many faults, did not: nothing is proven. */
static bool all_happened(const struct sim_options *o, const struct totals *t)
{
	uint64_t all = 0, weights = 0;
	bool ok = true;

	for (int i = 0; i < FAULT_KINDS; i++) {
		all += t->sum.faults[i];
		weights += o->profile->weight[i];
	}
	for (int i = 0; i < FAULT_KINDS; i++) {
		if (t->sum.faults[i] || all * o->profile->weight[i] < 8 * weights)
			continue;
		printf("the fault %s did not happen: the run proves nothing about it\n", sim_fault_names[i]);
		ok = false;
	}
	return ok;
}

static void print_totals(const struct sim_options *o, const struct totals *t, double per_s)
{
	const struct sim_result *r = &t->sum;

	printf("%lu seeds, %.0f simulated s/s: %lu commands, %lu acknowledged to users, %lu asked again, %lu epochs, %lu snapshots; %lu starts, "
	       "%lu failovers, %lu halves alone, %lu fences, %lu migrations (%lu done, %lu aborted)\nfaults:", t->seeds, per_s, r->commands, r->acknowledged, r->retries,
	       r->epochs, r->snapshots, r->starts, r->failovers, r->halves, r->fences, r->migrations, r->migrations_done, r->migrations_aborted);
	for (int i = 0; i < FAULT_KINDS; i++)
		if (o->profile->weight[i])
			printf(" %s %lu", sim_fault_names[i], r->faults[i]);
	printf("\n%lu violations\n", t->violations);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_seeds(struct sim_options *o, uint64_t from, uint64_t to, bool until, const char *json)
{
	struct totals t = {.list = json_array()};
	double began = seconds(), per_s;
	bool ok;

	printf("gantry-sim: seeds %lu-%lu, %u hosts, %u domains, %u minutes of %s faults each\n", from, to, o->hosts, o->domains, o->minutes,
	       o->profile->name);
	fflush(stdout);
	for (o->seed = from; o->seed <= to && !(until && t.violations); o->seed++)
		one_seed(o, &t);
	per_s = (double)t.simulated_ms / 1000 / (seconds() - began);
	print_totals(o, &t, per_s);
	ok = !t.violations && all_happened(o, &t);
	if (json && write_json(json, &t, per_s)) {
		fprintf(stderr, "gantry-sim: %s cannot be written\n", json);
		ok = false;
	}
	json_decref(t.list);
	return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seeds", 1, 0, 's'}, {"seed", 1, 0, 'n'}, {"minutes", 1, 0, 'm'}, {"hosts", 1, 0, 'h'}, {"domains", 1, 0, 'd'},
		{"faults", 1, 0, 'f'}, {"trace", 0, 0, 't'}, {"shrink", 0, 0, 'k'}, {"json", 1, 0, 'j'}, {"until-violation", 0, 0, 'u'},
		{"mutant", 1, 0, 'x'}, {"list-mutants", 0, 0, 'l'}, {"help", 0, 0, '?'}, {0}};
	struct sim_options o = {.hosts = 5, .domains = 50, .minutes = 10, .watchdogs = true, .profile = faults_profile("hostile")};
	uint64_t from = 1, to = 20;
	const char *json = NULL, *mutant = NULL;
	bool until = false, shrinking = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': if (sscanf(optarg, "%lu-%lu", &from, &to) != 2 || to < from) goto bad; break;
		case 'n': from = to = strtoull(optarg, NULL, 10); break;
		case 'm': o.minutes = (unsigned)atoi(optarg); break;
		case 'h': o.hosts = (unsigned)atoi(optarg); break;
		case 'd': o.domains = (unsigned)atoi(optarg); break;
		case 'f': o.profile = faults_profile(optarg); break;
		case 't': o.trace = true; break;
		case 'k': shrinking = true; break;
		case 'j': json = optarg; break;
		case 'u': until = true; break;
		case 'x': mutant = optarg; break;
		case 'l': list_mutants(); return 0;
		default: goto bad;
		}
	}
	if (optind != argc || !o.hosts || o.hosts > SIM_HOSTS_MAX || !o.minutes || o.domains > 4000 || !o.profile)
		goto bad;
	if (mutant && (c = choose_mutant(mutant, argv)))
		return c;
	signal(SIGABRT, on_abort);
	/* Many small blocks and now and then a large one: do not tidy up in between. */
	mallopt(M_MXFAST, 0);
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	mallopt(M_MMAP_THRESHOLD, 512 << 20);
	o.seed = from;
	return shrinking ? shrink(&o) : run_seeds(&o, from, to, until, json);
bad:
	fputs(usage, stderr);
	return 64;
}
