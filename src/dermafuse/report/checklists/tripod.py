"""The items of TRIPOD+AI with the answers that a run can give; see `checklists.items`."""

from __future__ import annotations

from typing import Final

_I, _M, _O, _R, _D = "Introduction", "Methods", "Open science", "Results", "Discussion"
_PEOPLE: Final = (("authors", "For the authors of the study."),)

TRIPOD_AI: Final = (
    ("1", "Title", "Names the study as developing or evaluating a prediction model", _PEOPLE),
    ("2", "Abstract", "Structured summary", _PEOPLE),
    ("3a", _I, "Health-care context and rationale", _PEOPLE),
    ("3b", _I, "Target population, purpose, intended users", (
        ("partly", "Research on dermoscopic images of pigmented lesions; no clinical use is intended."),
    )),
    ("3c", _I, "Known health inequalities", (
        ("partly", "ham", "Skin tone is not recorded in HAM10000, and darker skin is hardly represented."),
        ("authors", "For the authors of the study."),
    )),
    ("4", _I, "Objectives: development, evaluation or both", (
        ("reported", "test", "Evaluation of a finished model."),
        ("reported", "Development with internal validation."),
    )),
    ("5a", _M, "Sources of data", (
        ("reported", "ham", "HAM10000: Tschandl, Rosendahl & Kittler, Sci. Data 5:180161 (2018)."),
        ("partly", "Layout {/data/layout}; the source is for the authors to describe."),
        ("authors", "Describe the source of the data."),
    )),
    ("5b", _M, "Dates of collection", (
        ("partly", "ham", "Collected over 20 years (Tschandl et al. 2018); no dates of single images."),
        ("authors", "State when the data were collected."),
    )),
    ("6a", _M, "Setting and centres", (
        ("partly", "ham", "A university department in Vienna and a skin-cancer practice in Queensland."),
        ("authors", "State setting and centres."),
    )),
    ("6b", _M, "Eligibility", (
        ("partly", "{/data/skipped:,d} rows were left out as unusable; other criteria are those of the data set."),
        ("authors", "State the criteria."),
    )),
    ("6c", _M, "Treatments received", (("missing", "Not recorded."),)),
    ("7", _M, "Data preparation", (
        ("reported", "One decoder for training and use; metadata encoding fitted on training rows only; unreadable "
         "images listed in skipped.csv."),
    )),
    ("8a", _M, "Outcome and how it was assessed", (
        ("partly", "@/subgroups/dx_type", "The diagnosis; how it was made is in the dx_type rows of the subgroups."),
        ("partly", "The diagnosis of each image; how it was made is for the authors to describe."),
    )),
    ("8b", _M, "Who assessed the outcome", _PEOPLE),
    ("8c", _M, "Blinding of the outcome assessment", (("missing", "Not recorded."),)),
    ("9a", _M, "Choice of predictors", (
        ("reported", "The image, and age, sex and localization where known; dx_type is excluded by design."),
    )),
    ("9b", _M, "Definition of predictors", (
        ("reported", "Columns after encoding: {/data/metadata_columns}."),
        ("partly", "The bundle's preprocessing.json defines them."),
    )),
    ("9c", _M, "Who assessed the predictors", _PEOPLE),
    ("10", _M, "Sample size", (
        ("partly", "{/data/images:,d} images, all that are usable; no formal calculation, the intervals show what the "
         "size allows."),
        ("partly", "{@/n:,d} reported images; no formal calculation."),
    )),
    ("11", _M, "Missing data", (
        ("reported", "Missing age takes the training mean, missing categories have a column or none; see the "
         "configuration. Subgroup rows named unknown show the effect."),
    )),
    ("12a", _M, "How the data were used", (
        ("reported", "test", "All {@/n:,d} usable images for evaluation."),
        ("reported", "{/data/train:,d} to learn from, {/data/tuning:,d} for tuning, {/data/validation:,d} reported."),
        ("partly", "{@/n:,d} reported images."),
    )),
    ("12b", _M, "How predictors were handled", (
        ("reported", "Age standardised, categories one-hot; image scaled as the backbone expects."),
    )),
    ("12c", _M, "Type of model, building, internal validation", (
        ("reported", "{/network/backbone} fused with the metadata; epoch {/training/best_epoch:,d} of "
         "{/training/epochs:,d} chosen on {/training/early_stopping_rows} rows ({/training/monitor})."),
        ("partly", "See configuration and model."),
    )),
    ("12d", _M, "Differences between clusters", (
        ("reported", "Images of a lesion are resampled together; sources and sites are subgroups."),
    )),
    ("12e", _M, "Measures of performance", (
        ("reported", "Discrimination, classification and calibration (ECE, Brier, log loss), with their sources in "
         "the documentation."),
    )),
    ("12f", _M, "Model updating", (
        ("partly", "Temperature {/training/temperature:.3f}; no other recalibration."),
        ("missing", "None known."),
    )),
    ("12g", _M, "How predictions were computed", (
        ("reported", "By dermafuse {/dermafuse} from the bundle; predictions.csv holds them all."),
        ("reported", "predictions.csv holds them all."),
    )),
    ("13", _M, "Class imbalance", (
        ("partly", "Balanced metrics beside accuracy; the configuration gives the class weighting. Probabilities "
         "were not corrected for it unless calibration says so."),
    )),
    ("14", _M, "Fairness", (
        ("partly", "@/subgroups", "Performance by sex, age and site; not by skin tone or income."),
        ("missing", "No subgroup could be formed."),
    )),
    ("15", _M, "Model output and thresholds", (
        ("reported", "@/operating_points", "Probabilities of all classes; thresholds chosen on "
         "{@/notes/operating_points_chosen_on} rows (operating points)."),
        ("partly", "Probabilities of all classes; no thresholds: {@/notes/operating_points}"),
        ("partly", "Probabilities of all classes; the most probable decides."),
    )),
    ("16", _M, "Training and evaluation data compared", (
        ("partly", "test", "For the authors; class counts are in the class table."),
        ("reported", "Drawn from the same collection, split by chance within classes."),
    )),
    ("17", _M, "Ethical approval", _PEOPLE),
    ("18a", _O, "Funding", _PEOPLE),
    ("18b", _O, "Conflicts of interest", _PEOPLE),
    ("18c", _O, "Protocol", (("missing", "None registered with this run."),)),
    ("18d", _O, "Registration", (("missing", "None registered with this run."),)),
    ("18e", _O, "Data sharing", (
        ("reported", "ham", "HAM10000 is public (Harvard Dataverse, CC BY-NC 4.0)."),
        ("authors", "State where the data can be had."),
    )),
    ("18f", _O, "Code sharing", (("reported", "dermafuse, Apache-2.0; config.toml repeats the run."),)),
    ("19", "Involvement", "Patient and public involvement", _PEOPLE),
    ("20a", _R, "Flow of participants", (
        ("partly", "{/data/images:,d} images read, {/data/skipped:,d} rows left out, {@/n:,d} reported."),
        ("partly", "{@/n:,d} images reported."),
    )),
    ("20b", _R, "Characteristics", (
        ("partly", "@/subgroups", "Counts by sex, age and site in the subgroup table."),
        ("missing", "No patient data were at hand."),
    )),
    ("20c", _R, "Comparison with the development data", (
        ("authors", "test", "For the authors of the study."),
        ("missing", "There is no second data set."),
    )),
    ("21", _R, "Numbers analysed and of outcome events", (
        ("reported", "{@/n:,d} images of {@/lesions:,d} lesions, {@/malignant/support:,d} images malignant."),
        ("reported", "{@/n:,d} images; events by class in the class table."),
    )),
    ("22", _R, "The full model", (
        ("reported", "The bundle holds the whole network, its preprocessing and its calibration."),
    )),
    ("23a", _R, "Performance with intervals", (
        ("reported", "Every metric, overall, by class and by subgroup."),
    )),
    ("23b", _R, "Differences of performance", (
        ("reported", "@/subgroups", "Gaps to the rest with intervals in the subgroup table."),
        ("missing", "No subgroup could be formed."),
    )),
    ("24", _R, "Results of updating", (
        ("reported", "@/calibration/before", "Calibration before and after temperature scaling."),
        ("missing", "No update was made."),
    )),
    ("25", _D, "Interpretation", (
        ("partly", "The findings at the top; interpretation against earlier studies is for the authors."),
    )),
    ("26", _D, "Limitations", (
        ("partly", "The findings, the withheld cells and the model card name those that numbers can show."),
    )),
    ("27a", _D, "Poor or missing input at use", (
        ("partly", "Missing metadata is encoded as absent and named in each prediction; damaged images are refused."),
    )),
    ("27b", _D, "User interaction and expertise", _PEOPLE),
    ("27c", _D, "Next steps", _PEOPLE),
)  # fmt: skip
