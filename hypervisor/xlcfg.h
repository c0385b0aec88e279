/* Xen's domain configuration language -> DomainSpec. The whole grammar of xl.cfg; errors and warnings
 * carry file:line:column. Pure but for reading the file. Owner of results: caller. */
#pragma once

#include <stddef.h>

#include "lib/err.h"
#include "proto/domain.pb-c.h"

struct xlcfg_warnings { char **lines; size_t n; };   /* "web.cfg:7:1: unknown key 'memroy' is ignored" */
void xlcfg_warnings_free(struct xlcfg_warnings *w);

/* text: the file's content; name: for messages; extra: n "k=v" arguments of the command line, each appended as a line.
 * The result is complete but for what only the cluster can choose (uuid and MACs are made by spec_complete). -EINVAL with
 * status 65 for anything wrong in the file. */
int xlcfg_parse(const char *name, const char *text, size_t len, const char *const *extra, size_t n_extra,
		Gantry__DomainSpec **ret, struct xlcfg_warnings *warnings, struct err *err);
