"""Would the tests notice? Each guard is broken in a copy of the code, and the test that shows it must then fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

MUTATIONS = {
    "checkpoint's checksum": (
        "training/checkpoint.py",
        "        if found != expected:",
        "        if False:",
        "tests/training/test_interruption.py::test_a_damaged_newest_checkpoint_costs_one_interval",
    ),
    "shard's checksum": (
        "data/corpus.py",
        "    if found != shard.sha256:",
        "    if False:",
        "tests/trust/test_storage.py::test_a_flipped_byte_of_a_shard_is_seen_before_the_first_step",
    ),
    "seal": (
        "files.py",
        "    if content[SEAL] != _seal(rest) if SEAL in content else _sealed_by_another_name(rest):",
        "    if False:",
        "tests/data/test_data_corpus.py::test_manifest_of_another_version_or_damaged",
    ),
    "seal of a configuration": (
        "training/stored.py",
        "    check_sealed_text(path)\n    return merged",
        "    return merged",
        "tests/evaluation/test_evaluate.py::test_a_configuration_that_was_changed_is_refused",
    ),
    "metrics that were read": (
        "command/metrics.py",
        "        elif hashlib.sha256(content[: read.bytes]).hexdigest() != read.sha256:",
        "        elif False:",
        "tests/command/test_programs.py::test_metrics_that_were_changed_after_they_were_read_are_refused",
    ),
    "histories that an answer cut": (
        "tracking/histories.py",
        "for run_id, values in parts.items() if run_id != cut}",
        "for run_id, values in parts.items()}",
        "tests/tracking/test_reading.py::test_histories_of_many_runs_come_in_few_requests_and_whole",
    ),
    "lock": (
        "run_state.py",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except",
        "            pass\n        except",
        "tests/test_planned_run.py::test_a_second_process_refuses_the_run",
    ),
    "detector": (
        "training/spikes.py",
        'high = "loss" if loss > loss_limit else',
        'high = "loss" if False else',
        "tests/training/test_spikes.py::test_a_planted_spike_is_found_at_its_first_step",
    ),
    "detector of what is no number": (
        "training/spikes.py",
        "            if not (math.isfinite(loss) and math.isfinite(norm)):",
        "            if False:",
        "tests/training/test_spikes.py::test_what_is_no_number_is_told_at_once",
    ),
    "spool": (
        "tracking/journal.py",
        "        self._held += line_of(record)",
        "        pass",
        "tests/tracking/test_server_away.py::test_what_a_tracker_records_while_the_server_is_away_comes_once",
    ),
    "once and no more": (
        "tracking/journal.py",
        "if tokens > self.recorded.get(key, -1)}",
        "}",
        "tests/tracking/test_journal.py::test_an_attempt_adds_what_the_last_one_had_not_recorded",
    ),
    "order of the data": (
        "training/run.py",
        "        start_step=module.progress.step,",
        "        start_step=0,",
        "tests/training/test_run.py::test_resuming_is_exact",
    ),
    "order of a branch's data": (
        "training/run.py",
        "        start_step=module.progress.step,",
        "        start_step=module.progress.step - self.planned.first_step,",
        "tests/trust/test_batches.py::test_a_branch_reads_on_where_its_parent_stopped",
    ),
    "batches that a rollback leaves out": (
        "training/run.py",
        "skipped=module.progress.skipped)",
        "skipped=())",
        "tests/trust/test_batches.py::test_a_rollback_leaves_out_the_batches_of_its_spike",
    ),
    "detector that alarms at everything": (
        "training/spikes.py",
        'high = "loss" if loss > loss_limit else',
        'high = "loss" if math.isfinite(loss_limit) else',
        "tests/training/test_spikes.py::test_real_curves_are_left_alone",
    ),
    "detector of what comes slowly": (
        "training/spikes.py",
        "            loss_limit = min(scale_limit, self._fixed_limit(step))",
        "            loss_limit = scale_limit",
        "tests/training/test_spikes.py::test_divergence_that_comes_slowly_is_found",
    ),
    "ends of the paper's depths": (
        "prescribe/brute.py",
        "        depths[[0, -1]] = _cut_end(low), _cut_end(high)",
        "        depths[[0, -1]] = low, high",
        "tests/prescribe/test_studies.py::test_the_papers_search",
    ),
    "mode of a job's folder": (
        "sweep/records.py",
        "    _check_private(batch)\n    work",
        "    work",
        "tests/sweep/test_records.py::test_work_that_others_could_have_written_is_not_unpickled",
    ),
    "escaping of the page": (
        "report/page.py",
        "autoescape=True",
        "autoescape=False",
        "tests/report/test_page.py::test_no_name_breaks_out_of_the_page",
    ),
    "passwords of options": (
        "config/schema.py",
        "    refuse_passwords(options)\n",
        "",
        "tests/trust/test_secrets.py::test_no_option_takes_a_password",
    ),
    "what a suite may set": (
        "verbs/suites.py",
        "    if folder.parent != suites:\n        check_suite(folder)\n",
        "",
        "tests/trust/test_suite_files.py::test_nothing_of_it_runs_and_a_line_says_why",
    ),
    "the store of a foreign journal": (
        "verbs/replay.py",
        "_foreign(folder, asked) or _delivered",
        "_delivered",
        "tests/trust/test_foreign_journals.py::test_no_store_that_a_journal_names_is_connected_to",
    ),
    "files of a foreign journal": (
        "tracking/delivery.py",
        "            if not path.resolve().is_relative_to(self.folder.resolve()):",
        "            if False:",
        "tests/trust/test_foreign_journals.py::test_no_file_outside_of_the_folder_is_sent",
    ),
    "the run of a foreign note": (
        "tracking/delivery.py",
        " or not self._is_own_run():",
        ":",
        "tests/trust/test_foreign_journals.py::test_a_note_that_names_another_run_changes_nothing_of_it",
    ),
    "lines of a job's script": (
        "sweep/settings.py",
        "            if not text.isprintable():",
        "            if False:",
        "tests/sweep/test_sbatch.py::test_nothing_ends_a_line_of_a_script",
    ),
    "servers that are not MLflow's": (
        "tracking/server.py",
        "    if fault := fault_of(status, location, body):",
        "    if False:",
        "tests/tracking/test_bad_servers.py::test_a_server_that_answers_badly_is_told_as_it_is[an empty body]",
    ),
    "patience with a server": (
        "tracking/server.py",
        "KNOCK_SECONDS = 8.0",
        "KNOCK_SECONDS = 80.0",
        "tests/tracking/test_bad_servers.py::test_a_server_that_says_nothing_or_without_end_is_given_up",
    ),
    "what a server answers later": (
        "tracking/store.py",
        "    except (ParseError, JSONDecodeError) as error:",
        "    except ZeroDivisionError as error:",
        "tests/tracking/test_bad_servers.py::test_what_a_server_answers_later_is_no_traceback",
    ),
    "what reaches a terminal": (
        "terminal.py",
        "super().render_str(printable(text), **options)",
        "super().render_str(text, **options)",
        "tests/test_terminal.py::test_no_console_reads_a_name",
    ),
    "names that are no markup": (
        "terminal.py",
        "markup=False, emoji=False",
        "markup=True, emoji=True",
        "tests/test_terminal.py::test_no_console_reads_a_name",
    ),
    "letters that a stream lacks": (
        "terminal.py",
        'stream.reconfigure(errors="backslashreplace")',
        "pass",
        "tests/test_terminal.py::test_no_letter_ends_a_command_that_is_done[ascii]",
    ),
    "bytes that no record keeps": (
        "config/schema.py",
        "    refuse_bytes(options)\n",
        "",
        "tests/test_terminal.py::test_bytes_that_are_no_text_are_refused_before_any_work",
    ),
    "room on the disk": (
        "files.py",
        "    if free < needed_bytes:",
        "    if False:",
        "tests/trust/test_full_disks.py::test_a_run_looks_for_room_for_its_checkpoints",
    ),
    "names of files that fail": (
        "files.py",
        "        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error",
        "        raise",
        "tests/trust/test_full_disks.py::test_what_fails_while_it_is_written_names_its_file[table]",
    ),
    "words of a command line": (
        "verbs/main.py",
        '        check_arguments(verb, sys.argv[1:], root / "conf")\n',
        "",
        "tests/test_misuse.py::test_misuse_is_one_line[--frobnicate]",
    ),
    "lock that others may look at": (
        "run_state.py",
        "os.open(path, os.O_RDONLY)",
        "os.open(path, os.O_RDWR)",
        "tests/sweep/test_shared.py::test_a_run_of_somebody_else_is_seen_to_run_or_not",
    ),
    "umask of tensors": (
        "training/checkpoint.py",
        "        path.chmod(mode)\n",
        "",
        "tests/sweep/test_shared.py::test_tensors_follow_the_umask",
    ),
    "one launcher at a sweep": (
        "sweep/holding.py",
        "            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(identity[:DIGITS], 16))",
        "            pass",
        "tests/sweep/test_shared.py::test_one_launcher_holds_a_sweep",
    ),
    "SIGTERM to a launcher": (
        "sweep/holding.py",
        "        raise KeyboardInterrupt",
        "        return",
        "tests/sweep/test_shared.py::test_sigterm_ends_as_ctrl_c_does_and_is_given_back",
    ),
    "depth of a suite's files": (
        "verbs/suite_files.py",
        "    if _depth(text) > MAX_DEPTH:",
        "    if len(text) > 300_000:",
        "tests/trust/test_suite_files.py::test_brackets_are_counted_before_they_are_read",
    ),
    "digits of an array's id": (
        "sweep/records.py",
        "    if changed or not JOB_ID.fullmatch(found):",
        "    if changed:",
        "tests/sweep/test_records.py::test_an_array_s_id_that_is_no_number_is_not_taken",
    ),
    "statuses of a foreign journal": (
        "tracking/journal.py",
        'record.get("status", STATUSES[0]) in STATUSES',
        "True",
        "tests/trust/test_foreign_journals.py::test_a_record_of_other_types_is_a_line",
    ),
    "outputs that anybody may write to": (
        "files.py",
        "    if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH:",
        "    if False:",
        "tests/sweep/test_shared.py::test_outputs_that_anybody_may_write_to_are_said",
    ),
    "passwords of messages": (
        "tracking/store.py",
        "hidden((str(error).splitlines() or [type(error).__name__])[0])[:200]",
        "(str(error).splitlines() or [type(error).__name__])[0][:200]",
        "tests/trust/test_secrets.py::test_what_a_store_says_is_told_without_its_password",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_guard_and_its_test_are_where_they_are_looked_for(name: str) -> None:
    """So that the long form below does not go stale unseen."""
    file, whole, _, test = MUTATIONS[name]
    path, function = test.split("::")
    assert (ROOT / "src" / "shapelaw" / file).read_text().count(whole) == 1
    assert f"def {function.split('[')[0]}(" in (ROOT / path).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_guard_is_noticed(tmp_path: Path, name: str) -> None:
    file, whole, broken, test = MUTATIONS[name]
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name_of_folder in ("conf", "sweeps"):  # without which every command fails, guarded or not
        (tmp_path / name_of_folder).symlink_to(ROOT / name_of_folder)
    path = source / "shapelaw" / file
    text = path.read_text()
    path.write_text(text.replace(whole, broken))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", str(ROOT / test)]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTEST_ADDOPTS": ""}  # the caller's would come on top
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout  # 1: tests ran, and some failed
    assert "1 failed" in done.stdout
