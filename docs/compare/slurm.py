"""Start workers of a comparison on a SLURM cluster, by submitit (pip install submitit).

    adabelief compare digits-cnn --out DIR --jobs 1     on one machine: makes the plan, works along, writes the report
    python slurm.py DIR 20                              20 workers more; DIR on a disk that all machines share

Instead of DIR, a database's URL as given to ``--storage``. A worker that runs out of time gives its trial back. What a
worker printed is in slurm-logs/. Without a cluster, ``python slurm.py DIR 2 local`` starts the workers here.
"""

import subprocess
import sys

import submitit

storage, workers, cluster = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or [None])[0]
executor = submitit.AutoExecutor("slurm-logs", cluster=cluster)
executor.update_parameters(timeout_min=12 * 60, cpus_per_task=4)  # and slurm_partition, gpus_per_node, ...
command = [sys.executable, "-m", "lightning_adabelief", "compare", "--worker", storage, "--jobs", "1"]
with executor.batch():
    jobs = [executor.submit(subprocess.run, command, check=True) for _ in range(workers)]
for job in jobs:
    job.result()
