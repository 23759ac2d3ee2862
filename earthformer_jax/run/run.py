"""A run: a config and the workdir it is trained and scored in."""

import functools
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from earthformer_jax.data import state as data_state
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.state import DataState
from earthformer_jax.models.bases import LEARNS_NOTHING
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import memory
from earthformer_jax.run import workdir as workdir_lib
from earthformer_jax.run.ensembles import combining, members
from earthformer_jax.run.parts import (
    MakeParts,
    check_base,
    check_levels,
    check_model,
    check_report,
    check_same_data,
    example_shapes,
    load_data,
    make_model,
)
from earthformer_jax.run.probabilities import spread
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.run.protocols import choosing
from earthformer_jax.run.start import BASE, initial, with_base
from earthformer_jax.run.tokenizers import first
from earthformer_jax.run.tokenizers.restoring import to_restore
from earthformer_jax.run.trained import TrainedModel, restore
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import Checkpoints
from earthformer_jax.training.devices.checks import check_devices, check_fields
from earthformer_jax.training.disk.claim import check_writable, claim
from earthformer_jax.training.monitoring import trackers
from earthformer_jax.training.monitoring.speed import Work
from earthformer_jax.training.monitoring.trace import Trace
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.precision import policy
from earthformer_jax.training.setup.dataset import check_dataset
from earthformer_jax.training.setup.loss import make_loss
from earthformer_jax.training.workdir import CONFIG_FILE

logger = logging.getLogger(__name__)


class Run:
    """A config and its workdir: trains, scores, and reads the trained model.

    Data and model are created once, when they are first needed.

    Args:
        config: a config; fields it leaves out take their defaults.
        workdir: where everything is written; created by training.
        make_parts: makes the data set and the model of the complete config; None: those
            that the config names.
        protocol: name of a protocol to score by, instead of that of the config.
        programs: where the programs of its forecasts are kept from process to process;
            None, and for parts that `make_parts` makes: they are not kept.

    Raises:
        ConfigError: if the config has missing, unknown or invalid fields, or there is
            no such protocol for its data.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str | os.PathLike[str],
        make_parts: MakeParts | None = None,
        protocol: str | None = None,
        programs: Programs | None = None,
    ):
        config = config_lib.completed(config)
        if protocol is not None:
            config = choosing.chosen(config, protocol)
        self._protocol = protocol or ""
        self._settings = config_lib.check(config)
        self.workdir = pathlib.Path(workdir)
        self._make_parts = make_parts
        self._programs = programs if make_parts is None else None
        self._size = members.size_of(config)
        self._members: dict[int, Run] = {}
        self.config = workdir_lib.with_data_of(config, self.workdir)

    @classmethod
    def of(
        cls,
        workdir: str | os.PathLike[str],
        protocol: str | None = None,
        programs: Programs | None = None,
    ) -> "Run":
        """The run that a workdir was started with; the rest is as for the class.

        Raises:
            ConfigError: if the workdir does not exist, or holds no usable config.
        """
        config = workdir_lib.read_config(pathlib.Path(workdir))
        return cls(config, workdir, protocol=protocol, programs=programs)

    @policy.with_products
    def train(self, trace: Trace | None = None) -> bool:
        """Trains, or resumes training; of an ensemble, one member after the other.

        A model that forecasts codes needs a VQ-VAE, which is trained first.

        Args:
            trace: of some steps, of a training that is not that of an ensemble.

        Returns:
            Whether training is complete. False after SIGTERM, Ctrl-C, SIGHUP or
            SIGUSR1: the same call then resumes it.

        Raises:
            ConfigError: if the data or the model cannot be used, or the workdir cannot
                be written, is in use or was started with another config. Nothing has
                been written then.
            CheckpointError: if checkpoints cannot be read or written.
            NonFiniteError: if the loss or the state is no longer finite.
            TrainingError: if the data cannot be read or the workdir cannot be written
                any more; the same call resumes training.
        """
        check_devices(self._settings, jax.device_count(), jax.process_count())
        from earthformer_jax.training import loop  # slow; forecasts do not need it

        trackers.check(self._settings.train.trackers)
        if trace is not None and self._size > 1:
            raise ConfigError(
                f"--profile is for one model; this is an ensemble of {self._size}"
            )
        with claim(self.workdir):  # known before the data are read
            pass
        workdir_lib.check_same_config(self.config, self.workdir)
        if self.state is not None:
            check_same_data(self.config, self.workdir, self.state, lambda: self.dataset)
        if self._size > 1:
            return self._train_members()
        examples = len(self.dataset.data.train)
        workdir_lib.check_steps(self._settings.train, self.workdir, examples)
        self.rehearse()
        if self._tokenizer is not None and not self._train_tokenizer():
            return False
        complete = loop.train(
            self.config,
            self.workdir,
            dataset=self.dataset,
            model=self._trained_model,
            weights=initial(self.config, self.workdir, *self._built, self.dataset.data),
            work=self._work,
            trace=trace,
        )
        if self.state is None and self.dataset.data.state is not None:
            self.state = self.dataset.data.state()
        if complete:
            self._fit_spread()
        return complete

    def rehearse(self) -> Dataset:
        """Makes and checks what training needs before its first step; writes nothing.

        Returns:
            the data set.

        Raises:
            ConfigError: if the data or the model cannot be used.
        """
        if self._size > 1:
            members.check(self.config)
            self._member(0).rehearse()
            return self._reported
        check_dataset(self._settings, self._reported, self.model)
        make_loss(self._settings.train, self.model, self._reported)
        shapes = example_shapes(self.config, self.dataset)
        for batch in ("train.micro_batch", "eval.batch_size"):
            memory.check_attention(self.config, self.model, batch)
        memory.check_step(self.config, self._settings, self._built[1], shapes)
        check_fields(self._settings.parallel, shapes)
        check_levels(self._settings.parallel, *self._built, shapes[0])
        if self._tokenizer is not None:
            self._tokenizer.rehearse()
        return self.dataset

    def load(self) -> TrainedModel:
        """Reads the checkpoint that `config.eval.checkpoint` selects, best or last.

        The data are not read before they are asked for: what the model needs to know of
        them is kept in the workdir.

        Raises:
            ConfigError: if the model cannot be used, or the workdir holds another one.
            CheckpointError: if no checkpoint can be used.
        """
        trained = self._restored()
        if self._size > 1:
            return combining.of_members(
                trained,
                self._folders,
                self._settings.train,
                self._training_examples,
                self._built[1],
                self.config.eval.checkpoint,
            )
        return spread.apply(trained, self.workdir)

    def _restored(self) -> TrainedModel:
        """The checkpoint as it is; raises as `load`."""
        checkpoints = Checkpoints(self.workdir / "checkpoints")
        workdir_lib.check_same_model(self.config, self.workdir, checkpoints)
        return restore(
            self.config,
            checkpoints,
            open_dataset=lambda: self.dataset,
            state=self.state,
            model=self.model,
            like=self._built[1],
            programs=self._programs,
        )

    def _fit_spread(self) -> None:
        """Fits the spread of the members of a model that draws, after training."""
        if not spread.has_spread(self._built[1]):
            return
        if self.config.eval.spread == spread.FITTED and jax.process_index() == 0:
            spread.fit_once(self._restored(), self.dataset.data, self.workdir)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("spread fitted")

    @policy.with_products
    def evaluate(self) -> dict[str, Any]:
        """Scores the model read by `load` on the test split.

        Data other than those of the training are scored where the model has not learned
        from them, with the statistics of the training, into files of their own. So are
        the scores of a protocol other than that of the training.

        Returns:
            What scores.json holds: {"data": {...}, "forecasts": {name: scores}}. In a
            multi-process job all forecast, the first process scores and writes, and
            the others get {}.

        Raises:
            ConfigError: as for `load`, or if the data cannot be used, do not match
                those of the training, have an empty test split, or do not fit the
                protocol. Nothing has been written then.
            CheckpointError: if no checkpoint can be used.
        """
        from earthformer_jax.run.evaluating import reporting  # slow

        check_devices(self._settings, jax.device_count(), jax.process_count())
        protocol = choosing.asked_for(self.config, self.workdir, self._protocol)
        if protocol:
            choosing.check_settings(self.config, self.workdir, protocol)
        if jax.process_index() == 0 and self.workdir.is_dir():
            check_writable(self.workdir)  # known before the data are read
        trained = self.load()
        test_data = self._reported.data
        if len(test_data.test) == 0:
            raise ConfigError(f"the test split of {test_data.name!r} is empty")
        if protocol:
            choosing.check_followed(self.dataset, protocol)
        logger.info("data: %s", test_data.description)
        if trained.step:
            logger.info("scoring the checkpoint of step %d", trained.step)
        scores = {}
        if jax.process_index() == 0:
            label = reporting.label(
                self.config, self.workdir, self.dataset, self.state, protocol
            )
            scores = reporting.report(
                trained, self.dataset, self.config, self.workdir, label
            )
        else:
            reporting.assist(trained, self.dataset, self.config)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("scored")
        return scores

    @functools.cached_property
    def state(self) -> DataState | None:
        """What the workdir keeps of the data it was trained on, if anything.

        Raises:
            ConfigError: if it cannot be read.
        """
        state = data_state.read(self.workdir)
        if state is None and (self.workdir / CONFIG_FILE).exists():
            logger.warning(
                "%s holds no %s (an earlier version began it): statistics and splits "
                "are those of the files at hand, whatever it was trained on",
                self.workdir,
                data_state.FILE,
            )
        return state

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set of the config, in the units of the training if there was one."""
        if self._parts is not None:
            return self._parts[0]
        return load_data(members.whole(self.config), self.state)

    @property
    def _work(self) -> Work:
        """What a training step has to compute."""
        from earthformer_jax.run.planning.work import work_of  # slow

        shape, _ = example_shapes(self.config, self.dataset)
        return work_of(self.config, self._built[0], shape, self._built[1])

    @property
    def model(self) -> Forecaster:
        """The model of the config."""
        return self._built[0]

    @property
    def _trained_model(self) -> Forecaster:
        """The model, which computes again what `model.remat=auto` chooses."""
        from earthformer_jax.run.planning import automatic  # slow

        if self._parts is not None or not automatic.is_asked_for(self.config):
            return self.model
        done = max(Checkpoints(self.workdir / "checkpoints").steps(), default=0)
        plan = make_plan(self._settings.train, len(self.dataset.data.train))
        if done >= plan.total_steps:
            return self.model  # with which no further step is taken
        choice = automatic.chosen_for(self.config, self.dataset)
        logger.info("%s", choice.words())
        chosen = automatic.with_remat(self.config, choice.remat)
        return make_model(chosen, *example_shapes(chosen, self.dataset))

    @functools.cached_property
    def _parts(self) -> tuple[Dataset, Forecaster] | None:
        if self._make_parts is None:
            return None
        return self._make_parts(members.whole(self.config))

    @functools.cached_property
    def _built(self) -> tuple[Forecaster, Variables]:
        """The checked model, and the shapes of its variables."""
        if self.state is None:
            check_base(self.config, self.dataset)
            shapes = example_shapes(self.config, self.dataset)
        else:
            shapes = self.state.input_shape, self.state.target_shape
        if self._parts is not None:
            model = self._parts[1]
            if self._size > 1:
                model = Ensemble(*shapes, model, self._size)  # pyright: ignore
        else:
            model = make_model(self.config, *shapes)
        trained = self.state is not None
        variables = check_model(
            self.config, model, *shapes, trained=trained, programs=self._programs
        )
        return model, variables

    @functools.cached_property
    def _reported(self) -> Dataset:
        """The data set, for which the model can be reported on."""
        check_report(self.config, self.dataset, self.model)
        return self.dataset

    def _member(self, number: int) -> "Run":
        """The run of a member; members share data that are the same.

        Raises:
            ConfigError: if its data are not in the units of the ensemble.
        """
        if number in self._members:
            return self._members[number]
        member = Run(
            members.config_of(self.config, number),
            members.folder(self.workdir, number),
            self._make_parts,
        )
        folds = members.folds_of(self.config)
        if not folds:
            member.dataset = self.dataset
        elif number >= folds:
            member.dataset = self._member(number % folds).dataset
        else:
            data, its_data = self.dataset.data, member.dataset.data
            members.check_same_units(data, its_data, number)
        if number:
            member._built = self._member(0)._built
        elif self._parts is not None:
            like = check_model(
                member.config,
                self._parts[1],
                *example_shapes(member.config, member.dataset),
            )
            member._built = self._parts[1], like
        self._members[number] = member
        return member

    def _train_members(self) -> bool:
        """Trains what is left of the members, and combines them; as `train`."""
        self.rehearse()
        folders = self._folders
        for i, folder in enumerate(folders):
            if folder.exists():
                workdir_lib.check_same_config(self._member(i).config, folder)
                examples = len(self._member(i).dataset.data.train)
                workdir_lib.check_steps(self._settings.train, folder, examples)
        with claim(self.workdir):
            data = self.dataset.data
            combining.begin(self.config, self.workdir, data.state)
            for i, folder in enumerate(folders):
                logger.info("member %d of %d, in %s", i + 1, self._size, folder)
                if not self._member(i).train():
                    logger.info(
                        "%d of %d members are trained; the same command continues",
                        i,
                        self._size,
                    )
                    return False
            # Steps are chosen by the folds, and then all months make the base.
            like, base = self._built[1], self._base_of_members()
            combining.combine(self.config, self.workdir, folders, like, base)
        if self.state is None and data.state is not None:
            self.state = data.state()
        return True

    @functools.cached_property
    def _tokenizer(self) -> "Run | None":
        """The run of the VQ-VAE that is to be trained first; None: there is none."""
        is_done = Checkpoints(self.workdir / "checkpoints").steps()
        if is_done or not first.is_trained(self.config):
            return None
        run = Run(first.config_of(self.config), first.folder(self.workdir))
        run.dataset = to_restore(self.dataset, self.config.model.codebook_size)
        return run

    def _train_tokenizer(self) -> bool:
        """Trains the VQ-VAE and scores it; as `train`."""
        run = self._tokenizer
        assert run is not None
        with claim(self.workdir):
            combining.begin(self.config, self.workdir, self.dataset.data.state)
            logger.info("the VQ-VAE is trained first, in %s", run.workdir)
            if not run.train():
                return False
            if not (run.workdir / "scores.json").exists():
                run.evaluate()
        return True

    def _base_of_members(self) -> Mapping[str, Any] | None:
        """The constants of their base, of the whole training period; None: none.

        Raises:
            ConfigError: if the data have no such base.
        """
        base = self.config.model.get("base")
        if not base or base in LEARNS_NOTHING:
            return None
        like = self._member(0)._built[1]
        return with_base(None, base, like, self.dataset.data)["batch_stats"][BASE]

    @property
    def _training_examples(self) -> int:
        """Size of the training split, of the training if there was one."""
        if self.state is not None:
            return self.state.examples["train"]
        return len(self.dataset.data.train)

    @property
    def _folders(self) -> list[pathlib.Path]:
        """The workdirs of the members."""
        return [members.folder(self.workdir, i) for i in range(self._size)]
