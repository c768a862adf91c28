# The configuration, checked, and the view of it that all rules use: which files, options and networks a job has.

import sys

from snakemake.exceptions import WorkflowError

# A prefix of our own replaces Snakemake's, so it has to say as well that a failure before a pipe counts.
# Where remime is not installed (in the rules' conda environments) its source is used.
source = f"{workflow.basedir}/src"
sys.path.append(source)
shell.prefix(f'set -euo pipefail; export PYTHONPATH="${{{{PYTHONPATH:-}}}}:{source}"; ')

from remime import libraries, options
from remime.errors import RemimeError
from remime.layout import to_json
from remime.schema import listed
from remime.versions import STAGES

# Files of the command line lie over the Snakefile's own, so messages name them as well.
configured = listed(["config.yaml", *workflow.overwrite_configfiles])
try:
    flow = options.layout(config, name=configured)
except RemimeError as error:
    raise WorkflowError(str(error)) from None


onstart:
    # Rules with environments of their own have other versions than this process on purpose.
    if workflow.deployment_settings.deployment_method:
        libraries.forget()
    else:
        libraries.record()
