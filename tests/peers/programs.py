"""What a program costs besides its own work, in HyperQueue and in Ergodic, one after the other on the same two cores.

    pip install hyperqueue
    python tests/peers/programs.py [TASKS] [--ergodic PROGRAM]

HyperQueue runs `/bin/true`, and a shell that writes one number, as tasks of one job on a worker with two cores; Ergodic runs such a
shell as trials on two workers (`ergodic bench overhead --program`). Prints milliseconds per task or trial, three times in turn: compare within a turn.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

# As a trial of the benchmark does, but to one file for all, which nobody reads.
SHELL_LINE = ["sh", "-c", "printf '{\"step\": 1, \"loss\": 0}\\n' > \"$METRICS\""]


def time_hyperqueue(client, command, tasks, metrics):
    from hyperqueue import Job

    job = Job()
    for _ in range(tasks):
        job.program(command, env={"METRICS": metrics}, stdout=None, stderr=None)
    start = time.perf_counter()
    client.wait_for_jobs([client.submit(job)])
    return (time.perf_counter() - start) / tasks * 1e3


def time_ergodic(program, trials):
    command = [program, "bench", "overhead", "--program", "--trials", str(trials), "--format", "json"]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured["seconds"] / trials * 1e3


def main():
    from hyperqueue import LocalCluster
    from hyperqueue.cluster import WorkerConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="?", type=int, default=5000)
    parser.add_argument("--ergodic", default="ergodic", help="the program [default: ergodic, on PATH]")
    options = parser.parse_args()
    ergodic = os.path.abspath(options.ergodic) if os.path.dirname(options.ergodic) else options.ergodic

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with LocalCluster() as cluster:
            cluster.start_worker(WorkerConfig(cores=2))
            client = cluster.client()
            metrics = os.path.join(folder, "metrics")
            time_hyperqueue(client, ["/bin/true"], 100, metrics)
            for _ in range(3):
                plain = time_hyperqueue(client, ["/bin/true"], options.tasks, metrics)
                shell = time_hyperqueue(client, SHELL_LINE, options.tasks, metrics)
                trial = time_ergodic(ergodic, options.tasks // 100 * 100)
                print(f"HyperQueue /bin/true {plain:.2f} ms, a shell {shell:.2f} ms; Ergodic {trial:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
