"""Anti-DreamBooth: attack a model that has learned, or keeps learning, the subject.  (arXiv 2303.15433)

One subject at a time. Losses and units as in `advdm`. The authors' budget of 0.05 and step of 0.005 in
[−1, 1] are 6.4/255 and 0.64/255.
"""

from collections.abc import Iterator

import torch

from ..core.pgd import Loss, PGDState, check_ascent, pgd
from ..customization.dreambooth import dreambooth_steps
from ..customization.generate import generate
from ..customization.latent_diffusion import (
    CLASS_PROMPT,
    PROMPT,
    check_size,
    latents,
    text_embeddings,
    working_copy,
)
from ..customization.training import check_prior, check_training, last_pipe, train_steps
from ..runtime.checks import check_counts, check_seed
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view
from .advdm import advdm_loss, advdm_steps


def fsmg_steps(
    pipe: "StableDiffusionPipeline",
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    set_a: torch.Tensor,  # clean photos of the subject, which the surrogate learns, [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = PROMPT,
    surrogate_steps: int = 300,  # of DreamBooth on set A
    surrogate: "StableDiffusionPipeline | None" = None,  # trained already: set A isn't learned again
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
    **learning,  # every further argument of `dreambooth_steps`
) -> Iterator[PGDState]:
    """Anti-DreamBooth, FSMG: AdvDM on one fixed surrogate, trained on clean set A.  (2303.15433, section 4.2)

    The authors train the surrogate as long as the abuser's model. Here as well, both have the defaults of
    `dreambooth_steps`. The first state comes after the training, errors before it. Term: "loss".
    Raises ValueError for values outside their range.
    """
    check_size(pipe, x, "x")
    check_ascent(eta, steps, step_size, seed, momentum)
    check_counts(noise_samples=noise_samples, surrogate_steps=surrogate_steps)
    check_size(pipe, set_a, "set_a")
    learn = dreambooth_steps(pipe, set_a, prompt=prompt, steps=surrogate_steps, seed=seed, **learning)

    def run() -> Iterator[PGDState]:
        model = last_pipe(learn) if surrogate is None else surrogate
        attack = (eta, steps, step_size, seed, prompt, momentum, noise_samples, random_start)
        yield from advdm_steps(model, x, *attack)

    return run()


def aspl_steps(
    pipe: "StableDiffusionPipeline",
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    set_a: torch.Tensor,  # clean photos of the subject, which the surrogate learns, [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,  # of PGD in all; the last round may be shorter than the others
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = PROMPT,
    round_steps: int = 6,  # of PGD per round
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
    **learning,  # every further argument of `Surrogate`
) -> Iterator[PGDState]:
    """Anti-DreamBooth, ASPL: AdvDM on a surrogate that keeps learning the photos.  (2303.15433, alg. 1)

    A round: θ' ← θ trained on clean set A; PGD against θ'; θ ← θ trained on the perturbed photos. PGD is one
    run: momentum and noise go on from round to round. The authors run 50 rounds of 3, 6 and 3 steps, with one
    photo per training step. Term: "loss". Raises ValueError for values outside their range.
    """
    images = check_size(pipe, x, "x").to(pipe.unet.device)
    check_ascent(eta, steps, step_size, seed, momentum)
    check_counts(noise_samples=noise_samples, round_steps=round_steps)
    surrogate = Surrogate(pipe, set_a, prompt, seed, **learning)

    def run() -> Iterator[PGDState]:
        surrogate.begin()
        loss = advdm_loss(surrogate.attacked, surrogate.embedding, noise_samples)
        options = dict(eta=eta, step_size=step_size, seed=seed, momentum=momentum, random_start=random_start)
        yield from climb(surrogate, loss, images, round_steps, steps, **options)

    return run()


class Surrogate:
    """A model θ that keeps learning the protected photos, and θ', its copy, which is attacked.

    (arXiv 2303.15433, alg. 1.) Training is DreamBooth's, at a constant rate, with a new optimiser each time.
    Raises ValueError for values outside their range.
    """

    def __init__(
        self,
        pipe: "StableDiffusionPipeline",
        set_a: torch.Tensor,  # clean photos of the subject, [0, 1]
        prompt: str = PROMPT,
        seed: int = 0,
        surrogate_steps: int = 3,  # of training in each of a round's two phases
        lr: float = 1e-4,
        prior_weight: float = 1.0,  # at least 0; 0: no prior
        prior_images: torch.Tensor | None = None,  # of the class, [0, 1]; None: n_prior generated by `pipe`
        n_prior: int = 64,
        batch: int = 4,  # photos per training step, and as many prior images
        snr_gamma: float | None = 5.0,  # of min-SNR, as in `dreambooth_steps`
    ):
        counts = {"surrogate_steps": surrogate_steps, "batch": batch, "n_prior": n_prior}
        positive = {"lr": lr, "snr_gamma": snr_gamma}
        self.photos = check_training(pipe, set_a, prompt, "set_a", counts, positive)
        prior_images = check_prior(pipe, prior_weight, prior_images)
        self.pipe, self.prompt, self.batch, self.seed = pipe, prompt, batch, check_seed(seed)
        self.prior_weight, self.prior_images, self.n_prior = prior_weight, prior_images, n_prior
        self.how = {"steps": surrogate_steps, "lr": lr, "batch": batch, "snr_gamma": snr_gamma}

    def begin(self) -> None:
        """Make θ and θ' and the prior, and let θ' learn set A."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self.model, self.learner = working_copy(self.pipe), working_copy(self.pipe)
        for learner in (self.model, self.learner):
            learner.unet.requires_grad_(True)
            learner.text_encoder.requires_grad_(True)
        self.attacked = pipe_view(self.learner)  # θ', as it is attacked: the same weights, frozen
        self.clean, self.prior = latents(self.model, self.photos, self.batch), {}
        if self.prior_weight > 0:
            others = self.prior_images
            if others is None:
                others = generate(self.model, CLASS_PROMPT, n=self.n_prior, seed=self.seed)
            self.prior = {"prior": (latents(self.model, others, self.batch), CLASS_PROMPT)}
        self._renew()

    @torch.no_grad()
    def embedding(self) -> torch.Tensor:
        """The prompt's present embedding by θ', 1×L×D."""
        return text_embeddings(self.learner, [self.prompt])()

    def learn(self, x_adv: torch.Tensor) -> None:
        """θ ← θ trained on x_adv; then θ' ← θ trained on clean set A."""
        self._train(self.model, latents(self.model, x_adv, self.batch))
        self._renew()

    def _renew(self) -> None:
        for name in ("vae", "unet", "text_encoder"):
            getattr(self.learner, name).load_state_dict(getattr(self.model, name).state_dict())
        self._train(self.learner, self.clean)

    def _train(self, learner: "StableDiffusionPipeline", subject: tuple[torch.Tensor, torch.Tensor]) -> None:
        groups = {"instance": (subject, self.prompt)} | self.prior
        weights = {"prior": self.prior_weight}
        for _ in train_steps(learner, groups, weights, generator=self.generator, **self.how):
            pass


def climb(
    surrogate: Surrogate, loss: Loss, images: torch.Tensor, round_steps: int, steps: int, **options
) -> Iterator[PGDState]:
    """`pgd` on a loss of the surrogate, which learns the protected photos after every round."""
    for state in pgd(loss, images, steps=steps, **options):
        yield state
        if state.step % round_steps == 0 and state.step < steps:
            surrogate.learn(state.x_adv)
