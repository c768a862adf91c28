"""A real SLURM on this machine: slurmctld, nodes with fake GPUs, munge; no systemd, cgroups or accounting.

Everything runs in namespaces of its own: ``/etc/slurm`` is bound over (where the commands insist on finding
their configuration), ports cannot meet those of anything else, there is no way out to a network, and every
node has its own processes, which die with it. Nothing of the machine's own is changed, and nothing outlives
the process that started the cluster.

``python -m tests.slurm.cluster COMMAND …`` runs one command on a cluster of its own; a shell is good to look
around.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any

# Debian's packages have compiled it in; the executor plugin's job steps drop $SLURM_CONF.
CONFIGURATION = Path("/etc/slurm")
PROGRAMS = (
    "slurmctld", "slurmd", "sbatch", "srun", "munged", "mungekey", "ip", "unshare", "nsenter", "setpriv",
)  # fmt: skip
# Of all nodes. With 127.0.0.1 alone, getaddrinfo (AI_ADDRCONFIG) takes the machine to have no addresses.
ADDRESS = "10.77.0.1"
GPUS = 2
WAIT = 60.0

CONF = """\
ClusterName=remime
SlurmctldHost=login({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Cores and memory are what is written here, not what this machine has.
SlurmdParameters=config_overrides
# A dead node is noticed after ten seconds, not after minutes.
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
KillWait=3
ReturnToService=2
MinJobAge=300
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobRequeue=1
# Memory is polled and what takes more is killed, as cgroups would.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=3-0 DefaultTime=10
"""


def missing() -> str:
    """Why no cluster can be started here; empty when one can."""
    if sys.platform != "linux":
        return "SLURM is tried on Linux only"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent or not CONFIGURATION.is_dir():
        return f"no {', '.join(absent) or CONFIGURATION} (tests/slurm/install.sh installs SLURM)"
    if os.geteuid() != 0:
        return "starting a cluster needs root"
    trial = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


class Cluster:
    """A context manager: the cluster is up inside of it.

    Args:
        nodes: how many; they are called n1, n2, …
        gpu_nodes: the first so many have two fake GPUs each, of model a100.
        cores: of a node, whatever this machine has.
        memory: of a node, MB.
    """

    def __init__(self, nodes: int = 3, gpu_nodes: int = 2, cores: int = 8, memory: int = 16000) -> None:
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.gpu_nodes = self.nodes[:gpu_nodes]
        self.cores, self.memory = cores, memory
        self._running: dict[str, Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        # In /tmp itself: the name of munge's socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="remime-slurm-"))
        # munged wants everybody to be able to reach its socket.
        self.folder.chmod(0o755)
        try:
            self._configure()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def popen(self, command: Sequence[str | Path], cwd: Path | None = None, **options: Any) -> Popen[str]:
        """Start a command on the login node; text streams, and SIGINT as from a keyboard."""
        inside = [*self._inside(), f"--wd={cwd or Path.cwd()}", "--", *map(str, command)]
        return Popen(inside, text=True, preexec_fn=_listen, **options)

    def ask(self, *command: str) -> str:
        """What a command of SLURM says; CalledProcessError when it fails."""
        process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=WAIT)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, said)
        return said

    def queue(self, *states: str) -> list[str]:
        """Numbers of the jobs that wait, run or end, or of those in some states."""
        chosen = ",".join(states or ("PENDING", "RUNNING", "COMPLETING"))
        return self.ask("squeue", "--noheader", "--format=%i", f"--states={chosen}").split()

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that the controller remembers, as ``scontrol show job`` describes them."""
        lines = self.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
        fields = ([word.split("=", 1) for word in line.split() if "=" in word] for line in lines)
        return [dict(pair for pair in line if len(pair) == 2) for line in fields if line]

    def kill(self, name: str) -> None:
        """End all processes of a node, or of ``slurmctld``, at once, as a power cut does."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def start_node(self, name: str) -> None:
        """Boot a node and wait until it takes jobs."""
        self._boot_node(name)
        self._wait_for_node(name)

    def start_controller(self) -> None:
        """Start ``slurmctld`` and wait until it answers."""
        self._boot("slurmctld", "slurmctld -D & wait")
        self._wait("slurmctld", lambda: "is UP" in self.ask("scontrol", "ping"))

    def _boot_node(self, name: str) -> None:
        log = self.folder / "log" / f"slurmd.{name}.log"
        log.unlink(missing_ok=True)
        self._boot(name, f"hostname {name} && {{ slurmd -D -N {name} & wait; }}")
        self._wait(f"slurmd of {name}", lambda: log.exists() and "slurmd started" in log.read_text())

    def _wait_for_node(self, name: str) -> None:
        self._wait(f"node {name}", lambda: self._state(name) in ("idle", "mix", "alloc"))

    def _state(self, name: str) -> str:
        return self.ask("sinfo", "--noheader", f"--nodes={name}", "--format=%t").strip()

    def _configure(self) -> None:
        for name in ("etc", "state", "log", *(f"spool.{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        # Any device file serves as a GPU; SLURM counts them and says which of them a job may use.
        for i in range(GPUS):
            os.mknod(self.folder / f"gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(240, i))
        shape = f"CPUs={self.cores} CoresPerSocket={self.cores} RealMemory={self.memory}"
        nodes, gres = [], ["AutoDetect=off"]
        for i, name in enumerate(self.nodes):
            node = f"NodeName={name} NodeHostname={name} NodeAddr={ADDRESS} Port={17001 + i} {shape}"
            if name in self.gpu_nodes:
                node += f" Gres=gpu:a100:{GPUS}"
                gres.append(f"NodeName={name} Name=gpu Type=a100 File={self.folder}/gpu[0-{GPUS - 1}]")
            nodes.append(node)
        plugin = "disabled" if _version() >= (23, 11) else "cgroup/v1\nCgroupAutomount=no"
        text = CONF.format(
            folder=self.folder, address=ADDRESS, nodes="\n".join(nodes), names=",".join(self.nodes)
        )
        (self.folder / "etc" / "slurm.conf").write_text(text)
        (self.folder / "etc" / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "etc" / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")

    def _start(self) -> None:
        ready = self.folder / "ready"
        network = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && hostname login"
        bind = f"mount --bind {self.folder}/etc {CONFIGURATION}"
        script = f"{network} && {bind} && : > {ready} && exec sleep infinity"
        self._spawn("login", ["unshare", "--mount", "--net", "--uts", "sh", "-c", script])
        self._wait("the login node", ready.exists)
        key, socket, log = (self.folder / name for name in ("munge.key", "munge.socket", "log/munged.log"))
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
        files = f"--key-file={key} --socket={socket} --log-file={log}"
        files += f" --pid-file={key}.pid --seed-file={key}.seed"
        self._boot("munged", f"munged --foreground --origin={ADDRESS} {files} & wait")
        self._wait("munge", socket.exists)
        # Before the controller, which finds them all then; one that comes just after may be missed for long.
        for name in self.nodes:
            self._boot_node(name)
        self.start_controller()
        for name in self.nodes:
            self._wait_for_node(name)

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._running['login'].pid}", "--mount", "--net", "--uts"]

    def _boot(self, name: str, script: str) -> None:
        # The shell is the first process of a tree of its own, all of which ends with it.
        own = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts"]
        self._spawn(name, [*self._inside(), "--", *own, "--", "bash", "-c", script])

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        said = (self.folder / "log" / f"{name}.out").open("ab")
        # Should this process be killed, its children are as well.
        bound = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        self._running[name] = Popen(
            bound, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        said.close()

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            try:
                if ready():
                    return
            except subprocess.CalledProcessError:
                pass  # the daemon does not answer yet
            time.sleep(0.1)
        logs = "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in (self.folder / "log").iterdir())
        raise TimeoutError(f"{what} did not come up within {WAIT:.0f} s\n{logs}")

    def _stop(self) -> None:
        # The login node's process holds the namespaces, so it goes last.
        for name in reversed(list(self._running)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)


def _version() -> tuple[int, int]:
    said = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout
    year, month = said.split()[-1].split(".")[:2]
    return int(year), int(month)


def _listen() -> None:
    # What runs in the background of a shell ignores it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run a command on a cluster of its own."""
    if reason := missing():
        sys.exit(f"error: {reason}")
    with Cluster() as cluster:
        sys.exit(cluster.popen(sys.argv[1:] or ["bash"]).wait())


if __name__ == "__main__":
    main()
